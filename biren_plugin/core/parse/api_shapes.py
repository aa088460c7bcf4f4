"""The shape of the API server's objects: what is read from them is there, and of the right type.

A shape is the type of a value (`str`, `int`, `bool`), a list with the shape of its elements, or a
dictionary of shapes; a key that ends in `?` may be missing, and `*` stands for every key. What a shape
does not name is not looked at. Nulls are removed when an answer is read, as Go reads them: as missing.
"""

from collections.abc import Iterator
from typing import Any, Final

from biren_plugin.errors import ApiUnreachable

Object = dict[str, Any]
"""An object of the API, as loaded from JSON."""
Shape = type | list[Any] | dict[str, Any]

_WORDS: Final = {str: "a text", int: "a number", bool: "true or false"}


def shaped(found: Object, shape: Shape, what: str) -> Object:
    """Return `found`. Raises `ApiUnreachable` if it does not have the shape; `what` names it: `a claim`."""
    for place, right in _misfits(found, shape, ""):
        raise ApiUnreachable(f"the API server's answer is not {what}: {place} is not {right}")
    return found


def _misfits(found: object, shape: Shape, place: str) -> Iterator[tuple[str, str]]:
    """Yield where `found` does not have the shape, and what should be there."""
    if isinstance(shape, dict):
        if not isinstance(found, dict):
            yield place or "it", "an object"
            return
        for key, right in shape.items():
            name = key.removesuffix("?")
            if name == "*":
                for each, value in found.items():
                    yield from _misfits(value, right, f"{place}.{each[:64]}")
            elif name in found or not key.endswith("?"):
                yield from _misfits(found.get(name), right, f"{place}.{name}".lstrip("."))
    elif isinstance(shape, list):
        if not isinstance(found, list):
            yield place, "a list"
            return
        for at, each in enumerate(found):
            yield from _misfits(each, shape[0], f"{place}[{at}]")
    elif type(found) is not shape or (isinstance(found, str) and not _is_text(found)):
        yield place, _WORDS[shape]


def _is_text(found: str) -> bool:
    """Return whether no half of a surrogate pair is in it: JSON can hold one, and no file or header can."""
    try:
        found.encode()
    except UnicodeEncodeError:
        return False
    return True
