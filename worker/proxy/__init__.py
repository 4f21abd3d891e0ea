"""Upstream protocols, one a file: what is spoken to an upstream server, and its directives."""
