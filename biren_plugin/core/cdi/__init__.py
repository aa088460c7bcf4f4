"""The node's CDI file: its content, the rules of runtimes, and how two files differ."""
