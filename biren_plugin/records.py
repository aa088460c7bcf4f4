"""`@frozen` and `@mutable`: attrs' decorators, for classes of which a process makes a hundred at its start.

attrs compiles the source of four methods for each class; three of them, which are the same for any class
but for the names of its fields, take three fifths of that time. Here they are closures over these names.

A value that nothing checks may be a `NamedTuple`, which takes half of the time again.
"""

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

__all__ = ["frozen", "mutable"]

if TYPE_CHECKING:
    from attrs import define as mutable  # type checkers know them by these names
    from attrs import frozen
else:
    mutable = partial(attrs.define, eq=False, repr=False)
    """Make a class with slots for what is counted or remembered: nobody compares or prints it."""

    def frozen(cls: type) -> type:
        """Make a frozen class with slots: comparison, hash and text by its fields, as `attrs.frozen` does."""
        made = attrs.frozen(cls, eq=False, repr=False)
        fields = attrs.fields(made)
        methods = (
            *_comparison(_values_of([each.name for each in fields if each.eq])),
            _text([each.name for each in fields if each.repr]),
        )
        for method in methods:
            # Python puts None there for `__hash__` beside an own `__eq__`.
            if method.__name__ not in vars(cls):
                setattr(made, method.__name__, method)
        return made


C = TypeVar("C")


def _values_of(names: list[str]) -> Callable[[Any], Any]:
    return attrgetter(*names) if names else lambda _record: ()


def _comparison(values: Callable[[Any], Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def __eq__(self: C, other: object) -> bool:  # noqa: N807 - the method's name
        if other.__class__ is not self.__class__:
            return NotImplemented
        return bool(values(self) == values(other))

    def __hash__(self: C) -> int:  # noqa: N807 - the method's name
        return hash(values(self))

    return __eq__, __hash__


def _text(names: list[str]) -> Callable[..., str]:
    def __repr__(self: Any) -> str:  # noqa: N807 - the method's name
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({values})"

    return __repr__
