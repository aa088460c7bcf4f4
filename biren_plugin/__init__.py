"""A Kubernetes device plugin for Biren GPUs: one trio daemon for each node.

Rooms, from the top; each imports only from those below it: `cli`, `commands`, `simulate`, `daemon`,
`dra`, `device_plugin`, `cluster`, `monitor`, `sources` and `files`, `host` and `wire`, then `unix_sockets`,
`daemon_state`, `board`, `worker_thread` and `supervise`, then `core`, then `errors`.
"""

__version__ = "0.2.0"
