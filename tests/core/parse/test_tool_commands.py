"""What people are told to type exists: the vendor's tool has these commands, as its public notes show them."""

import ast
import re
from pathlib import Path

import biren_plugin
from biren_plugin.core.parse import vendor
from tests.support.documents import DOCUMENTS

PACKAGE = Path(biren_plugin.__file__).parent
KNOWN = {"brsmi gpu list", "brsmi gpu query -d health", "brsmi topo -m", "brsmi reset -g"}
SPLITTING = {"brsmi gpu set -s"}
"""In the documents only: the daemon never asks an operator to re-split."""


def test_commands_of_the_tool_are_spelled_once() -> None:
    named = {vendor.TOOL_LIST, vendor.TOOL_HEALTH, vendor.TOOL_TOPOLOGY, vendor.TOOL_RESET}
    assert {name.removesuffix(" ID") for name in named} == KNOWN


def test_every_command_in_a_reason_exists() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for command in re.findall(r"\bbrsmi [\w -]*", node.value):
                    assert command.strip().removesuffix(" ID") in KNOWN, path.name


def test_every_command_in_a_document_exists() -> None:
    for path in DOCUMENTS:
        for command in re.findall(r"`(brsmi [^`]*)`", path.read_text()):
            assert any(command.startswith(known) for known in KNOWN | SPLITTING), path.name
