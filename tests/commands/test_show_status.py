"""The output of `status`, as a document for programs and as tables for people."""

import json
import os
from pathlib import Path
from typing import Any

import attrs
import jsonschema
import pytest

from biren_plugin.commands import show_status as status_command
from biren_plugin.commands.show_status import show_status
from biren_plugin.core.hami.hami_state import HamiState
from biren_plugin.core.model import Device, Excluded
from biren_plugin.core.observed import Holder
from biren_plugin.daemon_state import DaemonState
from biren_plugin.monitor.status import status_document
from tests.support.cards import GPU, card, devices, listed
from tests.support.daemon_states import hold, new_state, observe, register

SCHEMA = Path(__file__).parents[2] / "schema/status.schema.json"
SICK = Device(card(1, 7, address="0000:3b:00.0"), GPU, ("it is hot",))
TRAIN = {(GPU, "card_0"): Holder("default", "train", "main")}


@pytest.fixture
async def state() -> DaemonState:
    state = new_state(listed(GPU, *devices(GPU, 0), SICK))
    observe(state, holders=TRAIN)
    return state


def check(document: dict[str, Any]) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)


async def test_the_document_has_each_cards_health_its_start_and_its_holder(
    state: DaemonState,
) -> None:
    document = status_document(state)
    check(document)
    (gpus,) = document["resources"]
    assert gpus["registered"] is True
    well, sick = gpus["devices"]
    assert well["healthy"] is True
    assert well["holder"] == {"namespace": "default", "pod": "train", "container": "main"}
    assert sick == {
        "card": "card_1",
        "healthy": False,
        "since": "2023-11-14T22:13:20Z",
        "faults": [],
        "reasons": ["it is hot"],
        "warnings": [],
        "product": None,
        "physical_gpu": 7,
        "pci_address": "0000:3b:00.0",
        "numa_node": None,
        "holder": None,
    }


async def test_problems_are_stuck_loops_missing_steps_and_suspect_probes(
    state: DaemonState,
) -> None:
    register(state, GPU, taken=False)
    document = status_document(state)
    check(document)
    assert document["problems"] == [f"{GPU}: not registered with the kubelet"]


async def test_excluded_cards_are_listed_with_the_word_that_excludes_them(
    state: DaemonState, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory = state.inventory.latest
    assert inventory is not None
    left_out = Excluded(Device(card(2, 8, address="0000:5e:00.0"), GPU), "0000:5e:00.0")
    state.inventory.post(attrs.evolve(inventory, excluded=(left_out,), unmatched=("no card_9",)))
    document = status_document(state)
    check(document)
    assert document["excluded"] == [
        {"card": "card_2", "resource": GPU, "pci_address": "0000:5e:00.0", "by": "0000:5e:00.0"}
    ]
    assert document["problems"] == ["no card_9"]
    *_, row, why = shown(document, capsys, monkeypatch)
    assert row.split() == ["card_2", GPU, "-", "excluded", "-", "-"]
    assert why.strip() == "excluded by --exclude 0000:5e:00.0"


async def test_a_starting_daemon_reports_that_it_knows_nothing_yet() -> None:
    state = new_state()
    document = status_document(state)
    check(document)
    assert document["holders_known"] is False
    assert document["resources"] == []


def shown(
    document: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    monkeypatch.setattr(status_command, "ask", lambda _folder: document)
    show_status(Path("/nowhere"), as_json=False, watch=False)
    return capsys.readouterr().out.splitlines()


async def test_the_table_has_a_row_for_each_card(
    state: DaemonState, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    register(state, GPU, taken=False)
    document = status_document(state) | {"time": "2023-11-15T03:13:20Z"}
    first, problem, _, _, resource, _, headings, well, sick, reason = shown(
        document, capsys, monkeypatch
    )
    assert first.startswith(f"br-gpu-device-plugin {document['version']}, process {os.getpid()}")
    assert problem == f"! {GPU}: not registered with the kubelet"
    assert resource.split() == [GPU, "NO", "1", "of", "2", "-"]
    assert headings.split() == ["CARD", "RESOURCE", "PRODUCT", "HEALTH", "FOR", "POD"]
    assert well.split() == ["card_0", GPU, "-", "Healthy", "5", "h", "default/train"]
    assert sick.split() == ["card_1", GPU, "-", "Unhealthy", "5", "h", "-"]
    assert reason.strip() == "it is hot"


async def test_a_node_under_hami_shows_its_report_its_lock_and_what_did_not_match(
    state: DaemonState, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert status_document(state)["hami"] is None
    state.hami = HamiState(reported=1_700_000_000.0, lock="team/p1", trouble="PATCH: forbidden")
    state.hami.note("refused", "HAMi promised card_7 to team/p1")
    document = status_document(state) | {"time": "2023-11-14T22:13:35Z"}
    check(document)
    _, problem, first, mismatch, *_ = shown(document, capsys, monkeypatch)
    assert problem == "! HAMi does not know the node's cards: PATCH: forbidden"
    assert first == "HAMi: cards NOT reported (last: 15 s ago), node locked for team/p1"
    assert mismatch.strip() == "HAMi promised card_7 to team/p1"


async def test_unreported_holders_are_unknown_and_not_none(
    state: DaemonState, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    observe(state, holders=None)
    *_, well, _, _ = shown(status_document(state), capsys, monkeypatch)
    assert well.split()[-1] == "unknown"


async def test_the_table_in_a_terminal_shows_reasons_word_for_word(
    state: DaemonState, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(state, listed(GPU, SICK.because("[red]see[/red] `dmesg`")))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    *_, row, first, second = shown(status_document(state), capsys, monkeypatch)
    assert "\033[1;31mUnhealthy" in row
    assert [first.strip(), second.strip()] == ["it is hot", "[red]see[/red] `dmesg`"]


async def test_a_node_without_cards_is_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = status_document(new_state())
    assert shown(document, capsys, monkeypatch)[-1] == (
        "No Biren card: see `br-gpu-device-plugin doctor`."
    )
    document["driver_loaded"] = False
    assert shown(document, capsys, monkeypatch)[-1] == (
        "No driver, or no /sys of the host: see `br-gpu-device-plugin doctor`."
    )


@pytest.mark.parametrize(
    ("since", "span"),
    [
        (None, "-"),
        ("2026-03-01T12:00:00Z", "0 s"),
        ("2026-03-01T12:00:01Z", "0 s"),
        ("2026-03-01T11:58:01Z", "119 s"),
        ("2026-03-01T11:58:00Z", "2 min"),
        ("2026-03-01T09:59:00Z", "2 h"),
        ("2026-02-01T12:00:00Z", "28 d"),
    ],
)
def test_time_spans_are_shown_in_a_suitable_unit(since: str | None, span: str) -> None:
    assert status_command._span(since, "2026-03-01T12:00:00Z") == span


def test_watching_continues_without_a_daemon_and_ends_with_control_c(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = iter([None, KeyboardInterrupt])

    def pause(_seconds: float) -> None:
        if (error := next(pauses)) is not None:
            raise error

    monkeypatch.setattr("biren_plugin.commands.show_status.time.sleep", pause)
    show_status(Path("/nowhere"), as_json=True, watch=True)
    captured = capsys.readouterr()
    assert captured.out == "", "what a program reads holds documents only"
    assert captured.err.count("no daemon runs here") == 2
