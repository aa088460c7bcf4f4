"""Attributes of sysfs: the beginning of a small file, or None whatever keeps us from it. Blocking."""

import os
import stat
from collections.abc import Iterable
from typing import Final

_MAX_TEXT: Final = 4096
"""Bytes: sysfs gives at most a page, and a file that only looks like sysfs gives no more either."""


def read_texts(folder: str, attributes: Iterable[str]) -> dict[str, str]:
    """Those of a folder's `attributes` that can be read."""
    texts = {}
    for attribute in attributes:
        text = read_text(f"{folder}/{attribute}")
        if text is not None:
            texts[attribute] = text
    return texts


def read_text(path: str) -> str | None:
    """The text of one attribute; what is no ASCII in it is replaced."""
    content = read_bytes(path, _MAX_TEXT)
    return content.decode("ascii", errors="replace") if content is not None else None


def read_bytes(path: str, count: int) -> bytes | None:
    """The beginning of a regular file; None for anything else (a FIFO would block for ever)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return os.read(descriptor, count)
    except OSError:
        return None
    finally:
        os.close(descriptor)
