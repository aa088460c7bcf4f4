"""The settings file: YAML, a key for each flag, read when the command line names one.

```yaml
pulse: 300
disable-probe: [link-width]
```

The file is read as words with their lines, so that values and errors are the same as for flags. Its
shape is schema/settings.schema.json.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from biren_plugin.core.setting_field import CONFIG, key_of
from biren_plugin.core.settings import SETTINGS, SettingsFile
from biren_plugin.errors import UsageError, reason_and_cure
from biren_plugin.host.bounded_file import read_bounded
from biren_plugin.host.config_directory import own_file_of, settings_file_of
from biren_plugin.records import frozen

_MAX_SIZE: Final = 65_536
"""Bytes: a hundred times what all settings need; a larger file is not a settings file."""
_KEYS: Final = {key_of(field.name): field for field in SETTINGS}


@frozen
class GivenPath:
    """The value of `--config` or `--config-dir`, empty if it is not given."""

    text: str = ""
    named_by: str = ""
    """The flag or variable, as errors name it."""


@frozen
class Entry:
    """One key of the file with its words."""

    name: str
    """The field of the setting."""
    words: tuple[str, ...]
    place: str
    """The place in an error: `settings.yaml, line 3: pulse`."""


def choose_file(config: GivenPath, config_dir: GivenPath, node: str) -> tuple[SettingsFile, str]:
    """Return the file of `--config` or `--config-dir`, and the flag or variable that leads to it.

    One of the two is given. Raises `UsageError`.
    """
    if not config_dir.text:
        return SettingsFile(Path(config.text)), config.named_by
    if config.text:
        raise UsageError("--config and --config-dir: give one of the two")
    folder = Path(config_dir.text)
    try:
        path = settings_file_of(folder, node)
        has_one = path.exists()
    except OSError as error:
        raise UsageError(f"{config_dir.named_by} {folder}: {reason_and_cure(error)}") from error
    if not has_one:
        own = own_file_of(folder, node)
        raise UsageError(
            f"{config_dir.named_by} {folder}: has neither {own.name} nor {path.name}; add one of the two"
        )
    return SettingsFile(path, folder), config_dir.named_by


def read_settings_file(path: Path, named_by: str = f"--{CONFIG}") -> list[Entry]:
    """Return the file's entries, each key once; `named_by` is the flag or variable. Raises `UsageError`."""
    from ruamel.yaml import YAML  # imported only for a file: it takes 20 ms
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        content = read_bounded(path, _MAX_SIZE)
    except OSError as error:
        raise UsageError(f"{named_by} {path}: {reason_and_cure(error)}") from error
    if len(content) > _MAX_SIZE:
        raise UsageError(
            f"{named_by} {path}: it has more than {_MAX_SIZE} bytes, and is not a settings file"
        )
    try:
        root = YAML(typ="safe", pure=True).compose(content.decode())
    except MarkedYAMLError as error:
        from biren_plugin.files.cdi_file import place_of_error

        where = place_of_error(error)
        what = ", ".join(filter(None, [error.context, error.problem]))
        raise UsageError(f"{path}{where}: {what or 'this is not YAML'}") from error
    except (YAMLError, UnicodeDecodeError, RecursionError) as error:  # ten thousand brackets
        raise UsageError(f"{path}: this is not YAML: {error}") from error
    return list(_entries(path, root))


def _entries(path: Path, root: Any) -> Iterator[Entry]:
    """Yield the entries of a node composed by the YAML library; its `id` is its kind."""
    if root is None:  # an empty file
        return
    if root.id != "mapping":
        raise UsageError(f"{path}, line {_line(root)}: give lines of KEY: VALUE, as in pulse: 300")
    seen: dict[str, int] = {}
    for key_node, value in root.value:
        key, line = str(key_node.value) if _is_word(key_node) else "?", _line(key_node)
        place = f"{path}, line {line}: {key}"
        if key not in _KEYS:
            raise UsageError(f"{place}: there is no such setting; {_suggestion(key)}")
        if key in seen:
            raise UsageError(f"{place}: already set on line {seen[key]}")
        seen[key] = line
        words = _words(place, value, several=_KEYS[key].default == ())
        yield Entry(_KEYS[key].name, words, place)


def _words(place: str, node: Any, *, several: bool) -> tuple[str, ...]:
    if several and node.id == "sequence" and all(map(_is_word, node.value)):
        return tuple(each.value for each in node.value)
    if not several and _is_word(node):
        return (node.value,)
    raise UsageError(f"{place}: give " + ("a list, as in [a, b]" if several else "one value"))


def _is_word(node: Any) -> bool:
    return node.id == "scalar" and not str(node.tag).endswith(":null")


def _suggestion(key: str) -> str:
    import difflib  # only an invalid file needs it

    close = difflib.get_close_matches(key.replace("_", "-"), _KEYS, n=1, cutoff=0.8)
    return f"did you mean {close[0]}?" if close else "br-gpu-device-plugin --help lists them"


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1
