"""Each line of the log has a stable name, and docs/operations.md lists them all."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "biren_plugin"
_WRITERS = {"say", "begin", "end", "log_record", "_remark", "Remark"}
"""Functions, methods and classes whose first argument is an event's name and the second its text."""
_BELOW = {"notice.py"}
"""Modules in which a writer passes on the name that it was given."""
_LOGGING = {"notice.py", "monitor/logs.py", "simulate/story.py"}
"""Modules that may import `logging`: for writing, for formatting, for showing."""


def sources() -> dict[str, ast.Module]:
    paths = [path for path in PACKAGE.rglob("*.py") if "_proto" not in path.parts]
    return {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in sorted(paths)
    }


def first_arguments(tree: ast.Module) -> Iterator[ast.expr]:
    """The first argument of each call of a writer."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Name(id=name) | ast.Attribute(attr=name), args=[first, _, *_]
            ) if name in _WRITERS:
                yield first


def events(tree: ast.Module) -> Iterator[str]:
    for each in first_arguments(tree):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value


def unnamed(tree: ast.Module) -> Iterator[int]:
    """Lines where the name is not written out; a function named `_remark` may pass on its own."""
    inner = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name in _WRITERS
        for node in ast.walk(function)
    }
    for each in first_arguments(tree):
        if not isinstance(each, ast.Constant) and each not in inner:
            yield each.lineno


def imports_logging(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.Import) and any(each.name == "logging" for each in node.names)
        for node in ast.walk(tree)
    )


def documented() -> set[str]:
    section = (ROOT / "docs/operations.md").read_text().split("## Logs")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?`) \|", section, flags=re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_the_log_is_written_only_through_notice() -> None:
    assert {path for path, tree in sources().items() if imports_logging(tree)} == _LOGGING


def test_each_events_name_is_written_out_where_it_is_logged() -> None:
    assert [
        f"{path}:{number}"
        for path, tree in sources().items()
        if path not in _BELOW
        for number in unnamed(tree)
    ] == []


def test_exactly_the_logged_events_are_documented() -> None:
    logged = {name for tree in sources().values() for name in events(tree)}
    assert documented() == logged, "docs/operations.md, Logs"
