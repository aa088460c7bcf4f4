"""docs/operations.md lists each metric of the daemon, and no other."""

import ast
import re

from tests.support.documents import ROOT

_NAME = re.compile(r"br_gpu_[a-z_]+")
_SUFFIX = re.compile(r"_(total|info)$")
"""What the text format adds to the names of counters and infos."""


def exported() -> set[str]:
    """Names that stand in the sources as strings of their own."""
    modules = (ROOT / "biren_plugin/monitor").glob("*metrics.py")
    strings = [
        node.value
        for module in modules
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return {text for text in strings if _NAME.fullmatch(text)}


def documented() -> set[str]:
    section = (ROOT / "docs/operations.md").read_text().split("## Metrics")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`br_gpu_.*?`) \|", section, flags=re.MULTILINE)
    return {_SUFFIX.sub("", name) for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_exactly_the_existing_metrics_are_documented() -> None:
    bytes_are_no_counter = {"br_gpu_memory_total_bytes"}
    assert bytes_are_no_counter < exported()
    assert documented() == exported(), "docs/operations.md, Metrics"
