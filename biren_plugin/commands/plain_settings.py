"""The daemon's settings from an ordinary command line and the environment, without cyclopts."""

from collections.abc import Mapping, Sequence
from typing import Final, cast

from biren_plugin.commands.plain_words import NotPlain, Parameter, plain_values
from biren_plugin.core.setting_field import CONFIG, CONFIG_DIR, variable_of
from biren_plugin.core.settings import SETTINGS, Settings, Source
from biren_plugin.errors import BadSetting

_PARAMETERS: Final = [Parameter(field.name, field.type, field.default) for field in SETTINGS]
_NAMES: Final = frozenset(field.name for field in SETTINGS)


def plain_settings(words: Sequence[str], environment: Mapping[str, str]) -> Settings | None:
    """Return the daemon's settings; None if cyclopts must read the command line."""
    if any(variable_of(name) in environment for name in (CONFIG, CONFIG_DIR)):
        return None
    try:
        given = plain_values(words, environment, _PARAMETERS, _NAMES)
        sources = {name: cast("Source", source) for name, (_, source) in given.items()}
        return Settings(**{name: value for name, (value, _) in given.items()}, origins=sources)
    except (NotPlain, BadSetting):
        return None
