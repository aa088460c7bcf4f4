"""core/parse/vendor.py is the only place for Biren's names, and driver versions compare as numbers."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import biren_plugin
from biren_plugin.core.parse.vendor import MINIMUM_DRIVER, driver_suffices, version_numbers

PACKAGE = Path(biren_plugin.__file__).parent
VENDOR = PACKAGE / "core/parse/vendor.py"
SPELLED = re.compile(
    r"biren(?!_plugin)|1ee0|BEV_HYPER|BR_PHY|\bcard_$|physical_id|mem_info|MemTotal"
)
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


@pytest.mark.parametrize("text", ["1.2.2", "1.2.10", "1.10", "1.12.0", "2.0", "1.12.0-rc1\n"])
def test_a_new_enough_driver_suffices(text: str) -> None:
    assert driver_suffices(text) is True


@pytest.mark.parametrize("text", ["1.2.1", "1.2", "0.99.99", "1.1.12", "1.2.1-2.0"])
def test_an_old_driver_does_not_suffice(text: str) -> None:
    assert driver_suffices(text) is False


@pytest.mark.parametrize("text", ["", "7", "unknown", "v1.2.2", "1.2.2.", "1..2", "1.2.2.1.1.1.1"])
def test_a_text_that_is_not_a_version_is_unknown(text: str) -> None:
    assert driver_suffices(text) is None


@given(st.lists(st.integers(0, 999_999), min_size=2, max_size=6))
def test_versions_are_compared_part_by_part(numbers: list[int]) -> None:
    text = ".".join(map(str, numbers))
    assert version_numbers(text) == tuple(numbers)
    assert driver_suffices(text) is (tuple(numbers) >= MINIMUM_DRIVER)


@given(st.text(max_size=40))
def test_any_text_is_accepted_as_a_version(text: str) -> None:
    assert driver_suffices(text) in (None, True, False)
