"""The commands, one module each, imported when the command is called; `cli` knows them by name."""
