"""The installed command as a process: by signals and sockets, against an independent kubelet."""
