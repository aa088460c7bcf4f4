"""A trouble is logged when it begins, when it changes and when it ends."""

import logging

import pytest

from biren_plugin.core.inventory_log import Remark
from biren_plugin.notice import ERROR, WARNING, Notice, say, say_bug, say_remarks


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return found


def test_a_line_has_event_fields_and_a_literal_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    say("device_hot", "card_0 is 90 %s hot", WARNING, card="card_0", degrees=90)
    (record,) = caplog.records
    fields = {"event": "device_hot", "card": "card_0", "degrees": 90}
    assert fields.items() <= vars(record).items()
    assert record.getMessage() == "card_0 is 90 %s hot"


def test_a_line_below_the_level_is_not_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    say("hello", "not important")
    assert lines(caplog) == []


def test_a_fault_is_logged_once_until_it_changes_or_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    notice = Notice()
    notice.end("fine", "nothing was wrong")
    for text in ("no disk", "no disk", "no network", "no network"):
        notice.begin("trouble", text, ERROR)
    assert lines(caplog) == [("ERROR", "no disk"), ("ERROR", "no network")]
    notice.end("fine", "all is well")
    notice.end("fine", "all is well")
    assert lines(caplog) == [("INFO", "all is well")]
    notice.begin("trouble", "no network")
    notice.forget()
    notice.begin("trouble", "no network")
    assert lines(caplog) == [("WARNING", "no network")] * 2


def test_the_text_may_change_while_the_cause_stays(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    notice = Notice()
    notice.begin("restarts", "again in 1 s: no disk", cause="no disk")
    notice.begin("restarts", "again in 2 s: no disk", cause="no disk")
    assert lines(caplog) == [
        ("WARNING", "again in 1 s: no disk"),
        ("DEBUG", "again in 2 s: no disk"),
    ]


def test_a_bug_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise KeyError("lost")
    except KeyError as error:
        say_bug("a call failed on a bug of the plugin", error, "a call")
    assert "KeyError: 'lost'" in caplog.text
    assert vars(caplog.records[0])["where"] == "a call"


def test_only_a_bad_remark_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    say_remarks([Remark("devices_left", "one left"), Remark("cards_missing", "none", bad=True)])
    assert lines(caplog) == [("INFO", "one left"), ("WARNING", "none")]
