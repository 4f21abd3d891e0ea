"""The same configuration and requests through nginx and headgate; see compare.py."""
