"""What is imported is declared in pyproject.toml, with the reason beside it."""

import ast
import functools
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OURS = {"biren_plugin", "tests"}


def imported(source: str) -> Iterator[str]:
    """The top-level modules that a source imports, wherever in it; those of Python itself left out."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            names = [node.module]
        for name in names:
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names | OURS:
                yield top


def declared(*groups: str) -> set[str]:
    """The distributions that `[project]` and these groups require."""
    wanted = [*PROJECT["project"]["dependencies"]]
    for group in groups:
        wanted += PROJECT["dependency-groups"][group]
    return {canonicalize_name(Requirement(each).name) for each in wanted}


@functools.cache
def installed() -> Mapping[str, list[str]]:
    """The distributions that each top-level module comes from; reading them takes a tenth of a second."""
    return packages_distributions()


def undeclared(source: str, requirements: set[str]) -> list[str]:
    """Imported modules that come from no required distribution."""
    distributions = installed()
    return [
        name
        for name in imported(source)
        if not requirements & {canonicalize_name(each) for each in distributions.get(name, [])}
    ]


@pytest.mark.parametrize(("folder", "groups"), [("biren_plugin", ()), ("tests", ("test",))])
def test_imported_packages_are_declared(folder: str, groups: tuple[str, ...]) -> None:
    requirements = declared(*groups, *(("package",) if folder == "tests" else ()))
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in undeclared(path.read_text(), requirements)
    ]
    assert not missing, "declare it in pyproject.toml, with its reason"


@pytest.mark.parametrize(
    "source",
    [
        "import hyperframe.frame",
        "def later():\n    from hyperframe import frame",
        "import os, not_installed_at_all",
    ],
)
def test_an_import_of_another_packages_dependency_is_undeclared(source: str) -> None:
    assert undeclared(source, declared()) != []
