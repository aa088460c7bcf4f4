"""The node's CDI file: its content, the runtimes' rules, and how two files differ."""
