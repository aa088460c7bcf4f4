"""A search for a module's name finds one file."""

from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "biren_plugin"
SHARED = {"__init__.py"}


def test_no_two_modules_have_one_name() -> None:
    modules = [each for each in PACKAGE.rglob("*.py") if "_proto" not in each.parts]
    names = Counter(each.name for each in modules if each.name not in SHARED)
    assert [name for name, number in names.items() if number > 1] == []


def test_no_module_outgrows_one_idea() -> None:
    modules = [each for each in PACKAGE.rglob("*.py") if "_proto" not in each.parts]
    assert [each.name for each in modules if len(each.read_text().splitlines()) > 330] == []
