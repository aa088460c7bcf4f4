"""Standard error never makes its writer wait, and reports the lines it dropped."""

import os
from collections.abc import Iterator

import pytest

from biren_plugin.monitor import standard_error
from biren_plugin.monitor.standard_error import CAPACITY, StandardError


class Pipe:
    """A pipe and a `StandardError` on its writing end."""

    def __init__(self) -> None:
        reader, writer = os.pipe()
        self.reader = os.fdopen(reader, errors="replace")
        self.writer = os.fdopen(writer, "w")
        self.stderr = StandardError(self.writer, lambda count: f"{count} dropped\n")

    def fill(self) -> int:
        """Write lines until the first is dropped; return their number, including that one."""
        count = 0
        while not self.stderr._dropped:
            self.stderr.write(f"{'x' * 1000}\n")
            count += 1
        return count


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.reader.close()  # a thread that still writes gets an error
    assert pipe.stderr.drain(10)
    pipe.writer.close()


def test_texts_come_out_in_order(pipe: Pipe) -> None:
    print("one", "two", file=pipe.stderr)
    print("three\ud800", file=pipe.stderr)
    assert pipe.stderr.drain(10)
    assert [pipe.reader.readline() for _ in range(2)] == ["one two\n", "three\\ud800\n"]


def test_dropped_lines_are_counted_at_their_place(pipe: Pipe) -> None:
    written = pipe.fill() - 1
    pipe.stderr.write("a line that would fit\n")
    for _ in range(written):
        assert pipe.reader.readline().startswith("xxx")
    assert pipe.reader.readline() == "2 dropped\n"
    pipe.stderr.write("there is room again\n")
    assert pipe.reader.readline() == "there is room again\n"


def test_a_text_that_can_never_fit_is_dropped_alone(pipe: Pipe) -> None:
    pipe.stderr.write("y" * (CAPACITY + 1) + "\n")
    assert pipe.reader.readline() == "1 dropped\n"
    pipe.stderr.write("short\n")
    assert pipe.reader.readline() == "short\n"


def test_the_end_does_not_wait_for_a_reader_that_never_reads(pipe: Pipe) -> None:
    pipe.fill()
    assert not pipe.stderr.drain(0)


def test_lines_refused_by_the_disk_are_counted_in_the_next_accepted_write(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, failures = os.write, [OSError(28, "No space left on device")]

    def refuse_once(descriptor: int, data: bytes) -> int:
        if failures:
            raise failures.pop()
        return write(descriptor, data)

    monkeypatch.setattr("biren_plugin.monitor.standard_error.os.write", refuse_once)
    pipe.stderr.write("lost\n")
    assert pipe.stderr.drain(10)
    pipe.stderr.write("next\n")
    assert [pipe.reader.readline() for _ in range(2)] == ["next\n", "1 dropped\n"]


def test_lines_refused_by_the_disk_are_counted_once_it_has_room_without_a_further_line(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, failures = os.write, [OSError(28, "No space left on device")] * 3

    def refuse(descriptor: int, data: bytes) -> int:
        if failures:
            raise failures.pop()
        return write(descriptor, data)

    monkeypatch.setattr(standard_error, "RETRY", 0.01)
    monkeypatch.setattr(os, "write", refuse)
    pipe.stderr.write("lost\n")
    assert pipe.reader.readline() == "1 dropped\n"
    assert not failures


def test_a_pipe_made_non_blocking_by_others_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer.fileno(), False)
    for number in range(200):
        pipe.stderr.write(f"{number} {'z' * 1000}\n")
    assert [int(pipe.reader.readline().split()[0]) for _ in range(200)] == list(range(200))
