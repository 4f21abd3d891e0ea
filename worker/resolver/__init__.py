"""Names to addresses while the server runs: DNS over UDP and TCP, which never blocks the event loop."""
