"""The worker: one uvloop process that serves clients and talks to upstream servers."""
