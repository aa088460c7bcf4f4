"""A command line with the meaning of the vendor's parser (pflag), rewritten for cyclopts.

1. The last occurrence of a flag counts, except for repeatable flags.
2. A switch has no value, or one joined by `=` that strconv.ParseBool accepts.
3. Flags are written with hyphens; cyclopts alone would also accept underscores.
"""

from collections.abc import Collection, Sequence
from typing import Final

from biren_plugin.core.setting_field import FALSE, TRUE
from biren_plugin.errors import UsageError

_ASKING: Final = ("--help", "--version")
"""Switches that cyclopts adds itself, which have no value."""


def rewrite(
    arguments: Sequence[str], switches: Collection[str], repeatable: Collection[str] = ()
) -> list[str]:
    """Return the command line in a form that cyclopts accepts. Raises `UsageError`.

    `switches` are the flags without a value; each occurrence of a `repeatable` flag counts. Other words
    keep their places.
    """
    kept: dict[str, list[str]] = {}
    words = iter(enumerate(arguments))
    for position, word in words:
        name, joined, value = word.partition("=")
        if not word.startswith("--") or word == "--":
            kept[f"{position}"] = [word]
            continue
        if "_" in name:
            raise UsageError(f"{name}: there is no such flag; write {name.replace('_', '-')}")
        if name in switches:
            group = _switch(word, name, value) if joined else [word]
        elif not joined and (following := next(words, None)) is not None:
            group = [word, following[1]]
        else:
            group = [word]
        if name in repeatable:
            kept[f"{position}"] = group
            continue
        kept.pop(name, None)  # so that the last occurrence keeps its place
        kept[name] = group
    return [word for group in kept.values() for word in group]


def _switch(word: str, name: str, value: str) -> list[str]:
    if value not in TRUE + FALSE:
        raise UsageError(f"{word}: give true or false")
    if name in _ASKING:
        return [name] if value in TRUE else []
    return [f"{name}={'true' if value in TRUE else 'false'}"]
