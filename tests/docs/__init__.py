"""Documentation against the code: links, flags, probes, events."""
