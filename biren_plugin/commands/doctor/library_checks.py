"""Biren's management library, which is optional."""

from collections.abc import Iterator
from pathlib import Path

from biren_plugin.commands.doctor import in_pod
from biren_plugin.commands.doctor.diagnosis import Check, ok, some_of, unknown, warning
from biren_plugin.core.parse import vendor
from biren_plugin.core.settings import Settings
from biren_plugin.errors import LibraryMissing, LibraryUnusable
from biren_plugin.host.brml_reader import BrmlReader

_NAME = "management library"


def check_library(settings: Settings) -> Iterator[Check]:
    """Yield one row. Opens the library, which may hang with a broken driver."""
    reader = BrmlReader(settings.host_root)
    try:
        reader.names()
    except LibraryMissing:
        if in_pod() and settings.host_root == Path("/"):
            yield unknown(_NAME, "none in this container; the node may have one")
        else:
            yield ok(_NAME, "none; it is optional, and cards are judged without it")
        return
    except LibraryUnusable as error:
        yield warning(_NAME, f"{error}", f"cards are judged without it; see `{vendor.TOOL_HEALTH}`")
        return
    assert reader.library is not None
    facts = reader.library.facts
    seen = f"{facts.path}, version {facts.library_version or 'unknown'}"
    if facts.lacking:
        seen += f", too old for {some_of(facts.lacking)}"
    yield ok(_NAME, seen)
