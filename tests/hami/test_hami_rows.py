"""The rows of `doctor` about HAMi: what it knows of the node, and whether it is in the cluster at all."""

from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from biren_plugin.commands.doctor import hami_checks
from biren_plugin.commands.doctor.diagnosis import Check, Verdict
from biren_plugin.commands.doctor.hami_checks import RIGHTS, check_hami
from biren_plugin.core.settings import Settings
from biren_plugin.errors import StatusUnavailable
from biren_plugin.monitor.status import status_document
from tests.support.hami_books import Wish
from tests.support.hami_node import HamiNode, until
from tests.support.hami_scheduler import HANDSHAKE


async def rows(node: HamiNode, **changes: Any) -> list[Check]:
    settings = attrs.evolve(node.settings, **changes)
    return await trio.to_thread.run_sync(lambda: list(check_hami(settings)))


@pytest.fixture
async def answering(node: HamiNode, monkeypatch: pytest.MonkeyPatch) -> HamiNode:
    """The node whose daemon answers to `status`."""

    def ask(_folder: Path) -> dict[str, Any]:
        return trio.from_thread.run_sync(status_document, node.state)

    monkeypatch.setattr(hami_checks, "ask", ask)
    return node


async def test_a_node_that_hami_knows_is_fine_and_its_lock_is_named(answering: HamiNode) -> None:
    async with answering.registered():
        assert answering.scheduler.run_pod("train", Wish((1,))) == "bound"
        await until(lambda: answering.hami.lock)
        known, access = await rows(answering)
    assert known.verdict is access.verdict is Verdict.OK
    assert "node locked for default/train" in known.seen


async def test_cards_that_are_not_reported_and_containers_that_did_not_match_are_named(
    answering: HamiNode,
) -> None:
    answering.hami.trouble = "PATCH /api/v1/nodes/n1: forbidden"
    known, _ = await rows(answering)
    assert known.verdict is Verdict.FAILURE
    assert known.seen.endswith("PATCH /api/v1/nodes/n1: forbidden")
    async with answering.registered():
        answering.hami.note("refused", "HAMi promised card_7 to team/p1")
        known, _ = await rows(answering)
    assert known.verdict is Verdict.WARNING
    assert known.seen.endswith("HAMi promised card_7 to team/p1")


async def test_a_daemon_without_the_mode_and_one_that_does_not_answer_are_told_apart(
    answering: HamiNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering.state.hami = None
    known, _ = await rows(answering)
    assert known.verdict is Verdict.FAILURE

    def ask(_folder: Path) -> dict[str, Any]:
        raise StatusUnavailable("no daemon answers")

    monkeypatch.setattr(hami_checks, "ask", ask)
    known, _ = await rows(answering)
    assert known.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("right", RIGHTS)
async def test_each_missing_right_is_named(answering: HamiNode, right: tuple[str, str]) -> None:
    answering.api.allowed = lambda *asked: asked != right
    _, access = await rows(answering)
    assert access.verdict is Verdict.FAILURE
    assert access.seen.endswith(f"may not: {' '.join(right)}")


async def test_a_node_that_the_api_server_does_not_know_is_named(answering: HamiNode) -> None:
    _, access = await rows(answering, node_name="n9")
    assert access.verdict is Verdict.FAILURE
    assert access.seen.startswith("GET /api/v1/nodes/n9: ")
    assert "correct --node-name" in access.advice
    _, access = await rows(answering, node_name="")
    assert access.seen.endswith("or give --node-name")


async def test_without_the_mode_a_hami_that_waits_for_the_cards_is_noticed(node: HamiNode) -> None:
    node.scheduler.add_node()
    (row,) = await rows(node, hami=False)
    assert row.verdict is Verdict.OK
    node.scheduler.tick()
    (row,) = await rows(node, hami=False)
    assert row.verdict is Verdict.WARNING
    assert "knows no cards on this node" in row.seen
    assert "run with --hami" in row.advice
    async with node.running():
        pass
    node.api.annotate("/api/v1/nodes/n1", {HANDSHAKE: "Requesting_2000-01-01 00:00:00"})
    (row,) = await rows(node, hami=False)
    assert row.verdict is Verdict.OK, "the node was left"


async def test_an_api_server_that_refuses_is_no_verdict_on_hami(answering: HamiNode) -> None:
    answering.api.refuse = lambda _method, _path: (403, "forbidden")
    (row,) = await rows(answering, hami=False)
    assert row.verdict is Verdict.UNKNOWN
    _, access = await rows(answering)
    assert access.verdict is Verdict.FAILURE


def test_without_access_to_the_api_server_there_is_no_row() -> None:
    assert list(check_hami(Settings())) == []
