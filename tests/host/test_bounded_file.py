"""Files that a person names: pipes, devices and large files do not hold up or fill the reader."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from biren_plugin.host import bounded_file
from biren_plugin.host.bounded_file import read_bounded


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("size", [0, 9, 10, 11, 1000])
def test_at_most_one_byte_more_than_allowed_is_read(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    assert read_bounded(path, 10) == b"x" * min(size, 11)
    assert read_bounded(Path("/dev/zero"), 10) == bytes(11)


@pytest.mark.parametrize("pieces", [[b"pulse", b": ", b"300"], []])
def test_a_pipe_is_read_to_its_end_however_slowly_it_is_written(
    pipe: Path, monkeypatch: pytest.MonkeyPatch, pieces: list[bytes]
) -> None:
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # without one, no writer may open a pipe
    writer = os.open(pipe, os.O_WRONLY)
    steps: Iterator[Callable[[], object]] = iter(
        [*(partial(os.write, writer, each) for each in pieces), partial(os.close, writer)]
    )
    wait_for_input = bounded_file._wait_for_input

    def write_as_the_reader_waits(*arguments: Any) -> bool:
        next(steps, lambda: None)()
        return wait_for_input(*arguments)

    monkeypatch.setattr(bounded_file, "_wait_for_input", write_as_the_reader_waits)
    assert read_bounded(pipe, 100) == b"".join(pieces)
    os.close(reader)


def test_what_a_pipe_holds_whose_writer_has_gone_is_read() -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"pulse: 300")
    os.close(theirs)
    assert read_bounded(Path(f"/dev/fd/{ours}"), 100) == b"pulse: 300"
    os.close(ours)


def test_a_pipe_that_its_writer_holds_open_is_an_error(
    pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_file, "PIPE_DEADLINE", 0.05)
    ours = os.open(pipe, os.O_RDWR)
    os.write(ours, b"pulse")
    with pytest.raises(TimeoutError, match="no process has written to its end"):
        read_bounded(pipe, 100)
    os.close(ours)


def test_a_pipe_without_a_writer_is_an_error(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_file, "PIPE_DEADLINE", 0.05)
    with pytest.raises(TimeoutError, match="a pipe that no process has written to its end"):
        read_bounded(pipe, 100)


@pytest.mark.parametrize("path", ["/nonexistent", "/", "/dev/null/x"])
def test_what_is_no_file_is_the_systems_error(path: str) -> None:
    with pytest.raises((FileNotFoundError, IsADirectoryError, NotADirectoryError)):
        read_bounded(Path(path), 100)
