"""The commands, one module each, imported when it is called; `cli` knows them by name."""
