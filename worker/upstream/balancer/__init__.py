"""Load balancing methods, one file each, over the peers' shared state (`headgate.shm.peers`)."""
