"""Every way in which one place of a JSON document can be wrong: missing, null, or of another type."""

import copy
from collections.abc import Iterator
from typing import Any, Final

JUNK: Final[tuple[Any, ...]] = (
    None, "", "\ud800", "a/../b\n", 0, -1, 1e30, True, [], [None], {}, {"a": None},
)  # fmt: skip
_GONE: Final = object()


def mangled(document: Any) -> Iterator[Any]:
    """Yield copies of `document`, each with one place replaced by junk, or removed."""
    for place in _places(document):
        for junk in (*JUNK, _GONE):
            copied = {"it": copy.deepcopy(document)}
            *way, last = ("it", *place)
            inside: Any = copied
            for each in way:
                inside = inside[each]
            if junk is not _GONE:
                inside[last] = junk
            elif way:
                del inside[last]
            yield copied["it"]


def _places(found: Any) -> Iterator[tuple[Any, ...]]:
    yield ()
    pairs = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()  # fmt: skip
    for key, value in pairs:
        for rest in _places(value):
            yield (key, *rest)
