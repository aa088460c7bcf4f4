"""Every async generator is read in a block that closes it: the garbage collector does so too late."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def unheld(source: str) -> list[int]:
    """The lines where an `async for` opens what it reads, so that nobody else can close it."""
    return [
        node.iter.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.AsyncFor) or (isinstance(node, ast.comprehension) and node.is_async)
        if isinstance(node.iter, ast.Call)
    ]


def test_an_opened_stream_is_found() -> None:
    assert unheld("async def f():\n    async for each in lists():\n        pass\n") == [2]
    assert unheld("async def f():\n    return [each async for each in lists()]\n") == [2]
    assert unheld("async def f():\n    async for each in lists:\n        pass\n") == []


def test_no_loop_opens_the_stream_that_it_reads() -> None:
    files = [file for part in ("biren_plugin", "tests") for file in (ROOT / part).rglob("*.py")]
    found = {str(each.relative_to(ROOT)): unheld(each.read_text()) for each in files}
    assert {name: lines for name, lines in found.items() if lines} == {}
