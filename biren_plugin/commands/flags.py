"""Flags for cyclopts: the words of a command line, values read strictly, a flag for each field of `Settings`.

A command line has the meaning that it has for the vendor's parser (pflag):

1. The last occurrence of a flag counts, except for repeatable flags.
2. A switch has no value, or one joined by `=` that strconv.ParseBool accepts.
3. Flags are written with hyphens; cyclopts alone would also accept underscores.
"""

import functools
import inspect
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import App, ArgumentCollection, Group, Parameter, Token

from biren_plugin.core.setting_field import (
    CONFIG,
    CONFIG_DIR,
    FALSE,
    HELP,
    TRUE,
    key_of,
    read_words,
    variable_of,
    words_of_variable,
)
from biren_plugin.core.settings import SETTINGS, Settings, SettingsFile, Source
from biren_plugin.errors import BadSetting, UsageError
from biren_plugin.records import frozen

FILE_SOURCE: Final = "file"
"""The source in a token that came from the settings file."""
_SOURCES: Final[dict[str, Source]] = {"cli": "flag", "env": "environment", FILE_SOURCE: "file"}


def read_value(kind: Any, tokens: Sequence[Token]) -> Any:
    """Convert the words to a value. Raises `UsageError`, which names the place of the words."""
    words = [token.value for token in tokens]
    try:
        return read_words(kind, words)
    except ValueError as error:
        given = ",".join(words)
        raise UsageError(f"{tokens[0].keyword} {given or repr(given)}: {error}") from error


@frozen
class _Given:
    """A value, and the place it was given."""

    value: Any
    source: Source = "flag"
    place: str = ""
    """The place in an error: `--pulse`, `BR_GPU_PULSE`, `settings.yaml, line 3: pulse`."""


def _read_given(kind: Any, tokens: Sequence[Token]) -> _Given:
    first = tokens[0]
    return _Given(read_value(kind, tokens), _SOURCES[first.source], first.keyword or "")


EVERY_PARAMETER: Final = Parameter(negative="", converter=read_value)
"""What cyclopts knows of each parameter of each command, unless an annotation says otherwise."""

_WITH_VARIABLE: Final = {
    f"--{key_of(name)}": variable_of(name)
    for name in (*(field.name for field in SETTINGS), CONFIG, CONFIG_DIR)
}


def fill_from_environment(
    _app: App, _commands: tuple[str, ...], arguments: ArgumentCollection
) -> None:
    """Give the arguments without a value those of the environment: a cyclopts config.

    A parameter with the name of a setting is that setting in each command: `devices` shows the daemon's
    cards in the daemon's container.
    """
    for argument in arguments:
        variable = _WITH_VARIABLE.get(argument.name, "")
        if argument.tokens:
            continue
        words = words_of_variable(argument.hint, os.environ.get(variable, ""))
        for index, word in enumerate(words):
            argument.append(Token(keyword=variable, value=word, source="env", index=index))


def with_settings(run: Callable[..., int]) -> Callable[..., int]:
    """Return a command with a flag for each setting besides its own flags, from `run(*, settings, **own)`.

    A setting's value is from its flag, else its environment variable, else the settings file.
    """

    @functools.wraps(run)
    def command(*, config: Any = None, config_dir: Any = None, **given: Any) -> int:
        named = {field.name: given.pop(field.name) for field in SETTINGS if field.name in given}
        file = SettingsFile(config.value, config_dir and config_dir.value) if config else None
        return run(settings=_gather(named, file), **given)

    own = [each for each in inspect.signature(run).parameters.values() if each.name != "settings"]
    # A command's own flags come first in its help.
    group = (
        Group("Settings of the daemon", sort_key=1) if own else Group.create_default_parameters()
    )
    flags = [
        _parameter(field.name, field.type, field.default, field.metadata.get(HELP, ""), group)
        for field in SETTINGS
    ]
    flags.append(_parameter(CONFIG, Path, None, _CONFIG_HELP, group))
    flags.append(_parameter(CONFIG_DIR, Path, None, _CONFIG_DIR_HELP, group))
    command.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in own}
    return command


def _parameter(name: str, kind: Any, default: Any, text: str, group: Group) -> inspect.Parameter:
    flag = Parameter(
        name=f"--{key_of(name)}",
        help=text,
        group=group,
        negative="",
        converter=_read_given,
        show_default=default not in (None, ()),
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, flag]
    )


_CONFIG_HELP: Final = (
    "A YAML file with settings, each under the name of its flag. Flags and variables override it."
)


_CONFIG_DIR_HELP: Final = (
    "A directory of such files, of which the daemon reads NODE.yaml if there is one, else default.yaml. NODE is "
    "--node-name, else the host name."
)


def _gather(named: dict[str, Any], file: SettingsFile | None) -> Settings:
    """Return the settings. Raises `UsageError`, which names the place of a value outside its limits."""
    # A bare switch is True without passing a converter: only a flag can be bare.
    known = {
        name: each if isinstance(each, _Given) else _Given(each, place=f"--{key_of(name)}")
        for name, each in named.items()
    }
    try:
        return Settings(
            **{name: each.value for name, each in known.items()},
            origins={name: each.source for name, each in known.items()},
            file=file,
        )
    except BadSetting as error:
        raise error.at(known[error.name].place) from error


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
