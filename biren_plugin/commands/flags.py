"""Flags for cyclopts: values read strictly, and a flag for each field of `Settings`."""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import attrs
from cyclopts import Parameter, Token

from biren_plugin.core.setting_field import HELP, key_of, read_words, variable_of
from biren_plugin.core.settings import SETTINGS, ContainerRuntime, Settings, Source
from biren_plugin.errors import BadSetting, UsageError

CONFIG: Final = "config"
"""The parameter whose value is the path of the settings file."""
FILE_SOURCE: Final = "file"
"""What stands in a token that came out of the settings file."""
_SOURCES: Final[dict[str, Source]] = {"cli": "flag", "env": "environment", FILE_SOURCE: "file"}


def read_value(kind: Any, tokens: Sequence[Token]) -> Any:
    """A converter: what the words mean. Raises `UsageError`, which names the place they stand at."""
    words = [token.value for token in tokens]
    try:
        return read_words(kind, words)
    except ValueError as error:
        raise UsageError(f"{tokens[0].keyword} {','.join(words)}: {error}") from error


@attrs.frozen
class _Told:
    """A value, and where it was told."""

    value: Any
    source: Source = "flag"
    place: str = ""
    """As an error names it: `--pulse`, `BR_GPU_PULSE`, `settings.yaml, line 3: pulse`."""


def _read_told(kind: Any, tokens: Sequence[Token]) -> _Told:
    first = tokens[0]
    return _Told(read_value(kind, tokens), _SOURCES[first.source], first.keyword or "")


def _split_variable(kind: Any, text: str, delimiter: str | None = None) -> list[str]:
    """The words of a variable: by commas if it may have several; none, as if not set, if it is empty."""
    several = getattr(kind, "__origin__", None) is tuple
    return [word for word in (text.split(",") if several else [text]) if word]


Switch = Annotated[bool, Parameter(negative="")]
Whole = Annotated[int, Parameter(converter=read_value)]


def _shared(name: str) -> Parameter:
    """A setting of the daemon that another command has a flag for: in its container, the same."""
    return Parameter(
        converter=read_value,
        env_var=variable_of(name),
        env_var_split=_split_variable,
        show_env_var=False,
    )


HostRoot = Annotated[Path, _shared("host_root")]
Runtime = Annotated[ContainerRuntime, _shared("container_runtime")]
CdiDir = Annotated[Path, _shared("cdi_dir")]
StatusDir = Annotated[Path, _shared("status_dir")]
MountHostPath = Annotated[bool, Parameter(negative=""), _shared("mount_host_path")]
MountDriDevice = Annotated[bool, Parameter(negative=""), _shared("mount_dri_device")]


def with_settings(run: Callable[..., int]) -> Callable[..., int]:
    """A command that has a flag for each setting besides its own, from `run(*, settings, **own)`.

    A setting's value is from its flag, else its environment variable, else the settings file.
    """

    @functools.wraps(run)
    def command(*, config: Path | None = None, **given: Any) -> int:
        told = {field.name: given.pop(field.name) for field in SETTINGS if field.name in given}
        return run(settings=_gather(told), **given)

    flags = [
        _parameter(field.name, field.type, field.default, field.metadata.get(HELP, ""))
        for field in SETTINGS
    ]
    own = [each for each in inspect.signature(run).parameters.values() if each.name != "settings"]
    command.__signature__ = inspect.Signature([*own, *flags, _CONFIG_PARAMETER])  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in own}
    return command


def _parameter(name: str, kind: Any, default: Any, text: str) -> inspect.Parameter:
    flag = Parameter(
        name=f"--{key_of(name)}",
        help=text,
        negative="",
        converter=_read_told,
        env_var=variable_of(name),
        env_var_split=_split_variable,
        show_default=default not in (None, ()),
        show_env_var=False,  # one sentence in the help says how they are all called
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, flag]
    )


_CONFIG_PARAMETER: Final = _parameter(
    CONFIG,
    Path,
    None,
    "A YAML file with settings, each under its flag's name, for what neither a flag nor a variable "
    "gives.",
)


def _gather(told: dict[str, Any]) -> Settings:
    """The settings. Raises `UsageError`, which names the place of a value that is out of its limits."""
    # A bare switch is True without passing a converter: only a flag can be bare.
    known = {
        name: each if isinstance(each, _Told) else _Told(each, place=f"--{key_of(name)}")
        for name, each in told.items()
    }
    try:
        return Settings(
            **{name: each.value for name, each in known.items()},
            origins={name: each.source for name, each in known.items()},
        )
    except BadSetting as error:
        raise error.at(known[error.name].place) from error
