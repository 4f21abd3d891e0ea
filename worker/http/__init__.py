"""HTTP: the client side of a worker, from bytes to a request and from a response to bytes."""
