"""`python -m biren_plugin`."""

from biren_plugin.cli import main

main()
