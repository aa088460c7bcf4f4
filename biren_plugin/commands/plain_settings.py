"""The daemon's settings from an ordinary command line and the environment, without cyclopts.

Cyclopts' import and its arguments for forty flags are a sixth of a start. Here is only what manifests
write, `--flag=value`, `--flag value` and switches, with valid values. Everything else gives None and is left to
cyclopts: commands, help, the settings file, and what is wrong, which it explains. Both read a value by
`setting_field.read_words`, and a test holds both to the same settings.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from biren_plugin.core.setting_field import (
    CONFIG,
    CONFIG_DIR,
    FALSE,
    TRUE,
    key_of,
    read_words,
    variable_of,
    words_of_variable,
)
from biren_plugin.core.settings import SETTINGS, Settings, Source
from biren_plugin.errors import BadSetting

_BY_FLAG: Final = {f"--{key_of(field.name)}": field for field in SETTINGS}


def plain_settings(words: Sequence[str], environment: Mapping[str, str]) -> Settings | None:
    """Return the daemon's settings; None if cyclopts must read the command line."""
    if any(variable_of(name) in environment for name in (CONFIG, CONFIG_DIR)):
        return None
    try:
        given = _from_flags(words)
        sources: dict[str, Source] = dict.fromkeys(given, "flag")
        for field in SETTINGS:
            text = environment.get(variable_of(field.name), "")
            parts = words_of_variable(field.type, text)
            if parts and field.name not in given:
                given[field.name] = read_words(field.type, parts)
                sources[field.name] = "environment"
        return Settings(**given, origins=sources)
    except (_NotPlain, ValueError, BadSetting):
        return None


class _NotPlain(Exception):
    """A word is not the flag of a setting with its value."""


def _from_flags(words: Sequence[str]) -> dict[str, Any]:
    """Return the values by field; of a repeated flag the last counts, unless it may be repeated."""
    texts: dict[str, list[str]] = {}
    rest = iter(words)
    for word in rest:
        flag, joined, text = word.partition("=")
        if flag not in _BY_FLAG:
            raise _NotPlain
        field = _BY_FLAG[flag]
        if not joined:
            text = "true" if field.type is bool else next(rest, "")
        if not text or (not joined and text.startswith("-")):
            raise _NotPlain
        if field.type is bool and text not in TRUE + FALSE:
            raise _NotPlain
        several = field.default == ()
        texts[field.name] = [*texts.get(field.name, ()), text] if several else [text]
    return {
        name: read_words(_BY_FLAG[f"--{key_of(name)}"].type, parts) for name, parts in texts.items()
    }
