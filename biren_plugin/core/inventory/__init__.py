"""The cards of the node: splits that settle, cards that are retired, renamed or held."""
