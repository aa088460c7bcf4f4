"""An ordinary command line and the environment as values, without cyclopts, whose import takes 50 ms.

Here is only what manifests and people write, `--flag=value`, `--flag value` and switches, with valid values.
Everything else is `NotPlain` and is left to cyclopts: help, the settings file, and what is wrong, which
it explains. Both read a value by `setting_field.read_words`, and tests hold both to the same values.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from biren_plugin.core.setting_field import (
    FALSE,
    TRUE,
    key_of,
    read_words,
    variable_of,
    words_of_variable,
)

FLAG: Final = "flag"
ENVIRONMENT: Final = "environment"
"""Sources of a value."""


class NotPlain(Exception):
    """Cyclopts must read this command line."""


class Parameter(NamedTuple):
    """One parameter of a command, which its flag and its variable are named after."""

    name: str
    type: Any
    default: Any
    """Empty for a flag that may be repeated."""


def plain_values(
    words: Sequence[str],
    environment: Mapping[str, str],
    parameters: Collection[Parameter],
    with_variable: Collection[str],
) -> dict[str, tuple[Any, str]]:
    """Return the given values with their sources, by name; `with_variable` names parameters with a variable.

    Raises `NotPlain`.
    """
    by_flag = {f"--{key_of(each.name)}": each for each in parameters}
    try:
        given = {
            name: (read_words(kind, texts), FLAG)
            for name, (kind, texts) in _by_flags(words, by_flag).items()
        }
        for each in parameters:
            text = environment.get(variable_of(each.name), "") if each.name in with_variable else ""
            parts = words_of_variable(each.type, text)
            if parts and each.name not in given:
                given[each.name] = read_words(each.type, parts), ENVIRONMENT
    except ValueError as error:
        raise NotPlain from error
    return given


def _by_flags(
    words: Sequence[str], by_flag: Mapping[str, Parameter]
) -> dict[str, tuple[Any, list[str]]]:
    """Return type and texts by name; of a repeated flag the last counts, unless it may be repeated."""
    found: dict[str, tuple[Any, list[str]]] = {}
    rest = iter(words)
    for word in rest:
        flag, joined, text = word.partition("=")
        if flag not in by_flag:
            raise NotPlain
        each = by_flag[flag]
        if not joined:
            text = "true" if each.type is bool else next(rest, "")
        if not text or (not joined and text.startswith("-")):
            raise NotPlain
        if each.type is bool and text not in TRUE + FALSE:
            raise NotPlain
        before = found[each.name][1] if each.default == () and each.name in found else []
        found[each.name] = each.type, [*before, text]
    return found
