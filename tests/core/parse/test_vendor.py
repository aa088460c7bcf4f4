"""core/parse/vendor.py is the only place for Biren's names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import biren_plugin

PACKAGE = Path(biren_plugin.__file__).parent
VENDOR = PACKAGE / "core/parse/vendor.py"
SPELLED = re.compile(r"biren(?!_plugin)|1ee0|BEV_HYPER|BR_PHY|\bcard_$")
"""What a text of the program does not spell out; "Biren", as in a sentence, is no name of a thing."""

ALLOWED = {"biren runtime"}
"""The name of a row of doctor."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a module with their lines; docstrings explain, and may name anything."""
    tree = ast.parse(path.read_text())
    explained = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in explained
        ):
            yield node.lineno, node.value


def modules() -> list[Path]:
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != VENDOR and "_proto" not in path.parts
    ]


@pytest.mark.parametrize(
    "path", modules(), ids=lambda path: str(path.relative_to(PACKAGE).with_suffix(""))
)
def test_no_module_except_vendor_spells_out_a_biren_name(path: Path) -> None:
    spelled = [(line, text) for line, text in texts(path) if SPELLED.search(text)]
    assert [each for each in spelled if each[1] not in ALLOWED] == []


def test_the_check_finds_the_names_in_vendor_itself() -> None:
    assert len([each for each in texts(VENDOR) if SPELLED.search(each[1])]) > 10
