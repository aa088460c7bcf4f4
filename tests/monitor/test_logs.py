"""A line for people, an object for programs, and no event that floods the log."""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.monitor import logs
from biren_plugin.monitor.logs import BURST, PERIOD, SUBJECTS, RateLimit
from biren_plugin.notice import say, say_bug

log = logging.getLogger("tests.anybody")


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


class Written:
    """The text written to standard error."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def __str__(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in str(self).splitlines()]


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Written]:
    """The root logger is as before afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Written(capsys)
    root.handlers[:], root.level = handlers, level


def test_the_object_has_event_message_and_fields(stderr: Written) -> None:
    logs.configure("info", "json")
    log.warning(
        "%s is hot", "card_0", extra={"event": "device_hot", "card": "card_0", "degrees": 90}
    )
    (line,) = stderr.objects()
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "warning",
        "event": "device_hot",
        "message": "card_0 is hot",
        "card": "card_0",
        "degrees": 90,
    }


def test_the_object_of_say_has_the_events_own_fields_and_nothing_else(stderr: Written) -> None:
    logs.configure("info", "json")
    say("slice_fields_dropped", "dropped", fields=("taints",))
    [document] = stderr.objects()
    assert document.keys() == {"ts", "level", "event", "message", "fields"}
    assert document["fields"] == ["taints"]


def test_a_librarys_line_has_its_loggers_name(stderr: Written) -> None:
    logs.configure("info", "json")
    log.warning("hello")
    assert stderr.objects()[0]["event"] == "tests.anybody"


def test_the_object_has_the_traceback_and_accepts_any_field_value(
    stderr: Written,
) -> None:
    logs.configure("info", "json")
    try:
        raise KeyError("lost")
    except KeyError:
        log.exception("a bug\nin two lines", extra={"event": "bug", "what": {1, 2}})
    (line,) = stderr.objects()
    assert line["message"] == "a bug\nin two lines"
    assert "KeyError: 'lost'" in line["traceback"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_too_many_open_files_are_logged_without_a_traceback(
    stderr: Written, form: Literal["text", "json"]
) -> None:
    logs.configure("info", form)
    try:
        raise OSError(24, "Too many open files")
    except OSError:
        logging.getLogger("trio.serve_listeners").exception("accept returned EMFILE")
    (line,) = str(stderr).splitlines()
    assert "accept returned EMFILE" in line
    assert "raceback" not in line


def test_a_text_record_is_one_line(stderr: Written) -> None:
    logs.configure("info", "text")
    log.warning("said by a peer:\n%s", "2026 INFO forged", extra={"event": "said"})
    (line,) = str(stderr).splitlines()
    assert line.endswith("Z WARNING said by a peer: 2026 INFO forged")


def test_a_text_record_has_no_control_character(stderr: Written) -> None:
    logs.configure("info", "text")
    log.warning("said by a peer: %s", "\x1b[31m\r\udcff", extra={"event": "said"})
    (line,) = str(stderr).splitlines()
    assert line.endswith("said by a peer: \\x1b[31m\\r\\udcff")


@pytest.mark.parametrize(("stream", "as_json"), [(Terminal(), False), (io.StringIO(), True)])
def test_auto_means_text_in_a_terminal_and_json_elsewhere(
    monkeypatch: pytest.MonkeyPatch, stderr: Written, stream: io.StringIO, *, as_json: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure("info", "auto")
    log.warning("hello")
    assert stream.getvalue().startswith("{") is as_json


def test_the_level_is_set_and_h2_is_quiet(stderr: Written) -> None:
    logs.configure("debug", "text")
    logging.getLogger("hpack.hpack").debug("every header")
    logs.configure("warning", "text")
    log.info("not important")
    assert str(stderr) == ""


def log_it(event: str, text: str, **fields: object) -> None:
    """As a library does; `say` is asked before it makes a record."""
    log.info(text, extra={"event": event, **fields})


@pytest.mark.parametrize("log_line", [log_it, say])
def test_repeated_events_about_one_subject_are_left_out_and_counted(
    stderr: Written, monkeypatch: pytest.MonkeyPatch, log_line: Callable[..., None]
) -> None:
    now = 1000.0
    monkeypatch.setattr("biren_plugin.monitor.logs.time.monotonic", lambda: now)
    logs.configure("info", "json")
    for degrees in range(BURST + 7):
        log_line("hot", "hot", card="card_0", degrees=degrees)
        log_line("hot", "hot", card=f"card_{degrees + 1}", degrees=0)
    shown = [line["card"] for line in stderr.objects()]
    assert shown.count("card_0") == BURST
    assert len(set(shown)) == BURST + 8, "other subjects are no repetition"
    now += PERIOD
    log_line("hello", "hello")
    *_, left_out, hello = stderr.objects()
    assert hello["event"] == "hello"
    assert left_out["event"] == "left_out"
    assert left_out["message"] == "hot (card_0): 7 more of these were left out of the log"


def test_the_number_of_remembered_subjects_is_bounded() -> None:
    limit = RateLimit()
    for number in range(10 * SUBJECTS):
        assert list(limit.over(0.0)) == []
        assert limit.admits((str(number),), 0.0)
    assert len(limit._seen) <= SUBJECTS


def test_a_bug_that_is_repeated_is_left_out_whatever_its_traceback(stderr: Written) -> None:
    logs.configure("info", "json")
    for number in range(BURST + 1):
        say_bug("a call failed", ValueError(number), "a call")
    assert len(stderr.objects()) == BURST


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(min_value=0, max_value=90), st.booleans()),
        max_size=200,
    )
)
def test_every_event_is_logged_or_counted_and_no_minute_exceeds_a_burst(
    events: list[tuple[str, float, bool]],
) -> None:
    limit = RateLimit()
    now, shown, counted = 0.0, 0, 0
    windows: dict[str, list[float]] = {}
    for name, pause, asks_first in events:
        now += pause
        if asks_first and limit.leaves_out((name,), now):
            continue
        for (over,), count in limit.over(now):
            counted += count
            assert now - windows[over][0] >= PERIOD
            del windows[over]
        if limit.admits((name,), now):
            shown += 1
            times = [each for each in windows.get(name, []) if now - each < PERIOD]
            windows[name] = [*times, now]
            assert len(windows[name]) <= BURST
    counted += sum(count for _, count in limit.over(now + PERIOD))
    assert shown + counted == len(events)
