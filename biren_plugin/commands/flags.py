"""Flags for cyclopts: the words of a command line, values read strictly, a flag for each field of `Settings`.

A command line has the meaning that it has for the vendor's parser (pflag):

1. The last occurrence of a flag counts, except for repeatable flags.
2. A switch has no value, or one joined by `=` that strconv.ParseBool accepts.
3. Flags are written with hyphens; cyclopts alone would also accept underscores.
"""

import functools
import inspect
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import attrs
from cyclopts import App, ArgumentCollection, Group, Parameter, Token

from biren_plugin.commands.settings_file import (
    Entry,
    GivenPath,
    choose_file,
    read_settings_file,
)
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
from biren_plugin.errors import BadSetting, DiskHangs, UsageError
from biren_plugin.host.in_time import in_time
from biren_plugin.records import frozen

_SOURCES: Final[dict[str, Source]] = {"cli": "flag", "env": "environment"}


def read_value(kind: Any, tokens: Sequence[Token]) -> Any:
    """Convert the words to a value. Raises `UsageError`, which names the place of the words."""
    return _read([token.value for token in tokens], kind, tokens[0].keyword or "")


def _read(words: Sequence[str], kind: Any, place: str) -> Any:
    try:
        return read_words(kind, words)
    except ValueError as error:
        given = ",".join(words)
        raise UsageError(f"{place} {given or repr(given)}: {error}") from error


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


def _default_in_help(default: object) -> str | None:
    """Return the text of `[default: ...]`; None, for no such text, if the default is empty."""
    return None if default in ("", ()) else str(default)


EVERY_PARAMETER: Final = Parameter(negative="", converter=read_value, show_default=_default_in_help)
"""What cyclopts knows of each parameter of each command, unless an annotation says otherwise."""

_KINDS: Final = {field.name: field.type for field in SETTINGS}
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


def with_settings(run: Callable[..., int], *, despite_file: bool = False) -> Callable[..., int]:
    """Return a command with a flag for each setting besides its own flags, from `run(*, settings, **own)`.

    A setting's value is from its flag, else its environment variable, else the settings file. With
    `despite_file`, a file that cannot be used leaves the command the others: `Settings.file` has the error.
    """
    gather = _gather_despite_file if despite_file else _gather

    @functools.wraps(run)
    def command(**given: Any) -> int:
        named = {
            field.name: _as_given(field.name, given.pop(field.name))
            for field in SETTINGS
            if field.name in given
        }
        config, config_dir = (_given_path(given.pop(name, None)) for name in (CONFIG, CONFIG_DIR))
        return run(settings=gather(named, config, config_dir), **given)

    own = [each for each in inspect.signature(run).parameters.values() if each.name != "settings"]
    # A command's own flags come first in its help.
    group = (
        Group("Settings of the daemon", sort_key=1) if own else Group.create_default_parameters()
    )
    flags = [
        _parameter(field.name, field.type, field.default, field.metadata.get(HELP, ""), group)
        for field in SETTINGS
    ]
    flags.append(_parameter(CONFIG, str, None, _CONFIG_HELP, group))
    flags.append(_parameter(CONFIG_DIR, str, None, _CONFIG_DIR_HELP, group))
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
        show_default=default not in (None, (), ""),
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


def _as_given(name: str, value: Any) -> _Given:
    # A bare switch is True without passing a converter: only a flag can be bare.
    return value if isinstance(value, _Given) else _Given(value, place=f"--{key_of(name)}")


def _given_path(given: _Given | None) -> GivenPath:
    return GivenPath(given.value, given.place) if given is not None else GivenPath()


def _gather(named: Mapping[str, _Given], config: GivenPath, config_dir: GivenPath) -> Settings:
    """Return the settings. Raises `UsageError`, which names the place of a wrong value."""
    node = named["node_name"].value if "node_name" in named else ""
    given = config_dir if config_dir.text else config
    if not given.text:
        return _settings(named)
    read = functools.partial(_read_file, config, config_dir, node)
    try:
        file, entries = in_time(read, _FILE_DEADLINE, f"reading {given.named_by} {given.text}")
    except DiskHangs as error:
        raise UsageError(f"{error}") from error
    in_file = {
        entry.name: _Given(_read(entry.words, _KINDS[entry.name], entry.place), "file", entry.place)
        for entry in entries
        if entry.name not in named
    }
    return _settings({**in_file, **named}, file)


def _read_file(
    config: GivenPath, config_dir: GivenPath, node: str
) -> tuple[SettingsFile, list[Entry]]:
    """Return the settings file that one of the two leads to, and its entries. Raises `UsageError`."""
    file, named_by = choose_file(config, config_dir, node)
    return file, read_settings_file(file.path, named_by)


_FILE_DEADLINE: Final = 8.0
"""Seconds: longer than a pipe's."""


def _gather_despite_file(
    named: Mapping[str, _Given], config: GivenPath, config_dir: GivenPath
) -> Settings:
    """Return the same, or the settings without the file if it cannot be used."""
    try:
        return _gather(named, config, config_dir)
    except UsageError as error:
        settings = _settings(named)  # raises again if the file is not the cause
        path = Path(config.text or config_dir.text)
        return attrs.evolve(settings, file=SettingsFile(path, trouble=f"{error}"))


def _settings(given: Mapping[str, _Given], file: SettingsFile | None = None) -> Settings:
    try:
        return Settings(
            **{name: each.value for name, each in given.items()},
            origins={name: each.source for name, each in given.items()},
            file=file,
        )
    except BadSetting as error:
        raise error.at(given[error.name].place) from error


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
