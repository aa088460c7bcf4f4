"""Attributes of sysfs: the beginning of a small file, or None if it cannot be read. Blocking."""

import os
import stat
from collections.abc import Iterable
from typing import Final

_MAX_TEXT: Final = 4096
"""Bytes: an attribute of sysfs has at most a page, and no more is read of any other file."""


def read_texts(folder: str, attributes: Iterable[str]) -> dict[str, str]:
    """Return those of a directory's `attributes` that can be read."""
    texts = {}
    for attribute in attributes:
        text = read_text(f"{folder}/{attribute}")
        if text is not None:
            texts[attribute] = text
    return texts


def read_text(path: str) -> str | None:
    """Return the text of one attribute, with characters that are not ASCII replaced."""
    content = read_bytes(path, _MAX_TEXT)
    return content.decode("ascii", errors="replace") if content is not None else None


def read_bytes(path: str, count: int) -> bytes | None:
    """Return the beginning of a regular file; None if it cannot be read at once, as a FIFO."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        content = os.read(descriptor, count)
        # An idle daemon reads 28 files a second: the kind is asked only where a FIFO without a writer reads alike.
        return content if content or stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None
    finally:
        os.close(descriptor)
