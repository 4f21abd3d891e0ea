"""Shared memory: the state of peers and the counters that all workers see.

Rules: only this package knows byte offsets. `zone.Zone` is the way in; `peers.Peers` is what a balancer works with;
`sessions.Sessions` is where sticky sessions are kept; `counters.Counters` is what a status page sums up.
"""
