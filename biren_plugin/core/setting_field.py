"""One setting: its field in a class of settings, its name in each source, and its value from text.

A field defines everything about a setting: its type, default, help and limits. The flag, the environment
variable, the key of the settings file and the file's schema are made from it.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

import attrs

from biren_plugin.errors import BadSetting
from biren_plugin.records import frozen

T = TypeVar("T")

TRUE: Final = ("1", "t", "T", "TRUE", "true", "True")
FALSE: Final = ("0", "f", "F", "FALSE", "false", "False")
"""The values that Go's strconv.ParseBool accepts."""
CONFIG: Final = "config"
"""The name of the parameter for the path of the settings file."""
CONFIG_DIR: Final = "config_dir"
"""The parameter whose value is the directory of settings files by node."""
VARIABLE_PREFIX: Final = "BR_GPU_"
HELP: Final = "help"
"""The key of the help in a field's metadata."""

DEFAULT_STATUS_DIR: Final = Path("/run/br-gpu-device-plugin")
STATUS_SOCKET: Final = "status.sock"
"""The name of the status socket in the directory of `--status-dir`. Both are here because `status` does without
`core.settings`, which imports every probe."""

_OCTAL: Final = re.compile(r"([+-]?)0_?([0-7](?:_?[0-7])*)")
"""010 is octal in Go; Python alone would refuse it."""
_LONGEST_NUMBER: Final = 20
"""Characters, so that any number can be printed; no setting needs that many."""
_DECIMAL: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")  # float() also accepts nan, inf and 1e9


@frozen
class Between:
    """A validator of numbers; the schema has its limits too."""

    least: float
    most: float
    right: str
    """The valid values: `seconds from 0.1 to 3600`."""

    def __call__(self, _owner: object, field: "attrs.Attribute[Any]", value: float) -> None:
        """Raises `BadSetting`."""
        if not self.least <= value <= self.most:
            text = f"{value}" if isinstance(value, int) else f"{value:g}"  # a long number as given
            raise BadSetting(field.name, text, f"give {self.right}")


@frozen
class Members:
    """A validator of a repeatable setting: each of its words is one of `names`."""

    names: tuple[str, ...]

    def __call__(self, _owner: object, field: "attrs.Attribute[Any]", words: Sequence[str]) -> None:
        """Raises `BadSetting`."""
        for word in words:
            _check_single(field.name, word)
            if word not in self.names:
                raise BadSetting(field.name, word, f"give one of {', '.join(self.names)}")


@frozen
class Matching:
    """A validator of texts: the whole text matches `pattern`, and `is_right` finds no other fault."""

    pattern: str
    right: str
    is_right: Callable[[str], bool] = lambda _text: True

    def __call__(self, _owner: object, field: "attrs.Attribute[Any]", text: str) -> None:
        """Raises `BadSetting`; the default is always valid."""
        if text == field.default:
            return
        if not (re.fullmatch(self.pattern, text) and self.is_right(text)):
            raise BadSetting(field.name, text, f"give {self.right}")


@frozen
class Absolute:
    """A validator of directories of the node: a relative path would depend on where the daemon was started."""

    pattern: str = "/.*"

    def __call__(self, _owner: object, field: "attrs.Attribute[Any]", path: Path | None) -> None:
        """Raises `BadSetting`."""
        if path is not None and not re.fullmatch(self.pattern, f"{path}"):
            raise BadSetting(field.name, f"{path}", "give a path that begins with /")


@frozen
class EachMatching:
    """A validator of a repeatable setting: each of its words as a whole matches `pattern`."""

    pattern: str
    right: str

    def __call__(self, _owner: object, field: "attrs.Attribute[Any]", words: Sequence[str]) -> None:
        """Raises `BadSetting`."""
        for word in words:
            _check_single(field.name, word)
            if not re.fullmatch(self.pattern, word):
                raise BadSetting(field.name, word, f"give {self.right}")


def _check_single(name: str, word: str) -> None:
    if "," in word:
        flag = f"--{key_of(name)}"
        raise BadSetting(name, word, f"give one name at a time; repeat the flag: {flag} A {flag} B")


Validator = Between | Members | Matching | EachMatching | Absolute


def setting(default: T, text: str, valid: Validator | None = None) -> T:
    """Return a field with its default, its help and its limits."""
    validator: Any = valid
    field: Any = attrs.field(default=default, validator=validator, metadata={HELP: text})
    return field  # type: ignore[no-any-return]  # as attrs types its own fields: by their default


def key_of(name: str) -> str:
    """Return `health-interval` for the field `health_interval`: the flag without dashes, the key in a file."""
    return name.replace("_", "-")


def variable_of(name: str) -> str:
    """Return `BR_GPU_HEALTH_INTERVAL` for the field `health_interval`."""
    return VARIABLE_PREFIX + name.upper()


def words_of_variable(kind: Any, text: str) -> list[str]:
    """Return the words of a variable, separated by commas if it may have several; none if it is empty."""
    words = text.split(",") if get_origin(kind) is tuple else [text]
    return [word.strip() for word in words if word.strip()]  # a value from a file ends in a newline


def read_words(kind: Any, words: Sequence[str]) -> Any:
    """Return a value of the type `kind` from its text; a repeatable setting has many words, others one.

    Raises `ValueError`, whose text names the valid values.
    """
    if get_origin(kind) is tuple:
        return tuple(words)
    (word,) = words
    if get_origin(kind) is Literal:
        if word not in get_args(kind):
            raise ValueError("give one of " + ", ".join(f'"{choice}"' for choice in get_args(kind)))
        return word
    if kind is bool:
        if word not in TRUE + FALSE:
            raise ValueError("give true or false")
        return word in TRUE
    if kind is int:
        return _read_whole(word)
    if kind is float:
        if not _DECIMAL.fullmatch(word):
            raise ValueError("give seconds, as in 1.5")
        return float(word)
    if kind in (Path, Path | None):
        if not word or "\0" in word:  # YAML can write one, and no system call takes it
            raise ValueError("give a path")
        return Path(word)
    return word


def _read_whole(word: str) -> int:
    """Read a number in Go's base 0, as pflag does: `16`, `0x10`, `0o20`, `020`, `0b1_0000`."""
    if len(word) <= _LONGEST_NUMBER and word == word.strip() and word.isascii():
        if octal := _OCTAL.fullmatch(word):
            word = f"{octal[1]}0o{octal[2]}"
        with suppress(ValueError):
            return int(word, 0)
    raise ValueError("give a whole number")


def split_address(text: str) -> tuple[str, int]:
    """`[::1]:9451` as host and port."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def is_host(host: str) -> bool:
    """Return whether a host is an address, or a name, whose last part is not a number."""
    if ":" not in host and not host.rpartition(".")[2].isdigit():
        return True
    from ipaddress import ip_address  # only an address needs it

    try:
        ip_address(host)
    except ValueError:
        return False
    return True
