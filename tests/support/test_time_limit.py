"""A test that hangs ends with its name and with every stack."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HANGING = """
import threading
import pytest
import trio

async def wait_for_what_never_comes():
    await trio.sleep_forever()

@pytest.mark.time_limit(1)
async def test_that_hangs(mock_clock):
    with trio.fail_after(1):  # on a clock that stands still
        await wait_for_what_never_comes()

@pytest.mark.time_limit(1)
def test_that_hangs_without_a_loop():
    threading.Event().wait()
"""


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("test", "stack"),
    [
        ("test_that_hangs", "wait_for_what_never_comes"),
        ("test_that_hangs_without_a_loop", "in test_that_hangs_without_a_loop"),
    ],
)
def test_a_hanging_test_is_named_with_its_stacks(
    tmp_path: Path, workers: int, test: str, stack: str
) -> None:
    path = tmp_path / "test_hanging.py"
    path.write_text(HANGING)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.time_limit"]
    ended = subprocess.run(
        [*command, "-n", str(workers), f"{path}::{test}"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert ended.returncode != 0
    assert f"test_hanging.py::{test} hangs: it has run for more than 1 s" in ended.stderr
    assert stack in ended.stderr
