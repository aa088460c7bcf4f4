"""A Kubernetes device plugin for Biren GPUs: one trio daemon for each node.

Rooms, from the top; each imports only from those below it: `cli`, `simulate`, `daemon`, `operate`
and `resource` (with `supervise`), `tasks`, `host`, `wire` and `board`, `core`, `errors`.
"""

__version__ = "0.1.0"
