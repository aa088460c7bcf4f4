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

from cyclopts import App, ArgumentCollection, Token

from biren_plugin.commands.flags import FILE_SOURCE
from biren_plugin.core.setting_field import CONFIG, CONFIG_DIR, key_of
from biren_plugin.core.settings import SETTINGS
from biren_plugin.errors import UsageError
from biren_plugin.host.bounded_file import read_bounded
from biren_plugin.host.config_directory import own_file_of, settings_file_of
from biren_plugin.records import frozen

_MAX_SIZE: Final = 65_536
"""Bytes: a hundred times what all settings need; a larger file is not a settings file."""
_KEYS: Final = {key_of(field.name): field for field in SETTINGS}


@frozen
class Entry:
    """One key of the file with its words."""

    key: str
    words: tuple[str, ...]
    line: int
    """The line number, from 1 on."""


def fill_from_file(_app: App, _commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Give the arguments without a value those of the settings file: a cyclopts config.

    Raises `UsageError`, which names the file, the line, the key and the valid values.
    """
    by_name = {argument.name: argument for argument in arguments}
    named = by_name.get(f"--{CONFIG}")
    if named is None:
        return
    folder = by_name[f"--{key_of(CONFIG_DIR)}"]
    for each in (named, folder):
        if (
            each.tokens and not each.tokens[0].value
        ):  # an empty flag or variable counts as not given
            each.tokens.clear()
    if folder.tokens:
        if named.tokens:
            raise UsageError("--config and --config-dir: give one of the two")
        node = by_name["--node-name"].tokens
        named.append(_choose(folder.tokens[0], node[0].value if node else ""))
    if not named.tokens:
        return
    path = Path(named.tokens[0].value)
    named_by = named.tokens[0].keyword or f"--{CONFIG}"
    open_before = {name for name, argument in by_name.items() if not argument.tokens}
    for entry in read_settings_file(path, named_by):
        flag = f"--{entry.key}"
        if flag in open_before:
            place = f"{path}, line {entry.line}: {entry.key}"
            for index, word in enumerate(entry.words):
                token = Token(keyword=place, value=word, source=FILE_SOURCE, index=index)
                by_name[flag].append(token)


def _choose(folder: Token, node: str) -> Token:
    """Return the value of `--config` that the directory of `--config-dir` stands for. Raises `UsageError`."""
    place = folder.keyword or "--config-dir"
    directory = Path(folder.value)
    try:
        path = settings_file_of(directory, node)
        has_one = path.exists()
    except OSError as error:
        raise UsageError(f"{place} {folder.value}: {error.strerror}") from error
    if not has_one:
        own = own_file_of(directory, node)
        raise UsageError(
            f"{place} {directory}: has neither {own.name} nor {path.name}; add one of the two"
        )
    return Token(keyword=place, value=f"{path}", source=folder.source)


def read_settings_file(path: Path, named_by: str = f"--{CONFIG}") -> list[Entry]:
    """Return the file's entries, each key once; `named_by` is the flag or variable. Raises `UsageError`."""
    from ruamel.yaml import YAML  # imported only for a file: it takes 20 ms
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        content = read_bounded(path, _MAX_SIZE)
    except OSError as error:
        raise UsageError(f"{named_by} {path}: {error.strerror}") from error
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
        yield Entry(key, _words(place, value, several=_KEYS[key].default == ()), line)


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
