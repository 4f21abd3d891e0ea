"""TLS on either side of the proxy: contexts, the layer between a socket and a protocol, names in certificates."""
