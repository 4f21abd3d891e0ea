"""The command line and the master process: reads the configuration, owns the sockets, keeps workers running.

Nothing here knows HTTP. The master runs no event loop and starts no thread, so that it can fork at any time.
"""
