"""What the running daemon shows: its log, metrics, probes over HTTP, and its status socket."""
