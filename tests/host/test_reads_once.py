"""A command's reads: each name once, and one that hangs delays the rest once."""

import threading

import pytest

from biren_plugin.errors import HostUnreadable
from biren_plugin.host import reads_once
from biren_plugin.host.reads_once import read_names


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    for patience in ("LISTING", "SHARED", "FOLLOWING"):
        monkeypatch.setattr(reads_once, patience, 0.02)
    return threading.Event()


def test_names_that_hang_are_told_from_those_that_have_gone(released: threading.Event) -> None:
    def read(name: str) -> str | None:
        if name in "bd":
            released.wait()
        return None if name == "c" else name.upper()

    values, hung = read_names(lambda: list("abcde"), read)
    released.set()
    assert values == {"a": "A", "e": "E"}
    assert hung == {"b", "d"}


def test_a_listing_that_hangs_is_the_hosts_fault(released: threading.Event) -> None:
    with pytest.raises(HostUnreadable, match="as when a driver hangs"):
        read_names(lambda: ["a"] * released.wait(), lambda name: name)
    released.set()


def test_what_a_read_raises_is_raised(released: threading.Event) -> None:
    with pytest.raises(ZeroDivisionError):
        read_names(lambda: ["a"], lambda _name: 1 // 0)
