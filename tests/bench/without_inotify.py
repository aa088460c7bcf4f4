"""The installed command on a node whose inotify instances have run out."""

import errno
from typing import NoReturn

import inotify_simple

from biren_plugin.cli import main


def run_out(*_arguments: object, **_options: object) -> NoReturn:
    """What `inotify_init1` does then."""
    raise OSError(errno.EMFILE, "Too many open files")


if __name__ == "__main__":
    inotify_simple.INotify = run_out
    main()
