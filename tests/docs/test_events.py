"""Each line of the log has a stable name, and docs/operations.md lists them all."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
_FORMS = (r'"event": "(\w+)"', r'\bevent ?= ?"(\w+)"', r'\bremark\(\s*"(\w+)"')
"""How the sources write an event's name."""


def sources() -> list[Path]:
    return [path for path in (ROOT / "biren_plugin").rglob("*.py") if "_proto" not in path.parts]


def unnamed(path: Path) -> Iterator[str]:
    """Where `log` is called without `extra`."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="log"), attr=attr), keywords=keywords
            ) if attr in _METHODS and "extra" not in {each.arg for each in keywords}:
                yield f"{path.relative_to(ROOT)}:{node.lineno}"


def documented() -> set[str]:
    section = (ROOT / "docs/operations.md").read_text().split("## Logs")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?`) \|", section, flags=re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_each_line_of_the_log_names_its_event() -> None:
    assert [where for path in sources() for where in unnamed(path)] == []


def test_each_event_is_documented_and_no_other() -> None:
    text = "".join(path.read_text() for path in sources())
    assert documented() == {name for form in _FORMS for name in re.findall(form, text)}
