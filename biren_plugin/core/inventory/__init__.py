"""What the node holds: splits that settle, cards that are retired, renamed or held."""
