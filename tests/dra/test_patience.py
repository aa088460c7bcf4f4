"""How long Prepare waits for what passes by itself, and that it answers before the kubelet gives up."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.cluster.api_server import CALL_DEADLINE, ApiServer
from biren_plugin.core.dra.claims import ClaimId
from biren_plugin.core.dra.pool import pool_of
from biren_plugin.core.model import DeviceList, HostFacts, Inventory
from biren_plugin.daemon_state import Counters
from biren_plugin.dra.claim_service import PATIENCE, ClaimService, Offer
from biren_plugin.errors import ApiError, ApiForbidden, ApiNotFound, ApiUnreachable
from biren_plugin.files.claim_files import ClaimFiles
from biren_plugin.worker_thread import WorkerThread
from tests.core.dra.test_pool import whole
from tests.support.cards import GPU

KUBELETS: float = 45.0
"""Seconds after which the kubelet gives a call up."""
CARD = "gpu-0000-01-00-0"


class Api:
    """Does what `behave` says until the time `mends_at`, and answers then."""

    def __init__(self, behave: Callable[[], None], mends_at: float) -> None:
        self.calls = 0
        self._behave = behave
        self._mends_at = mends_at

    async def call(self, _method: str, path: str, *, deadline: float = CALL_DEADLINE) -> Any:
        self.calls += 1
        await trio.lowlevel.checkpoint()
        if trio.current_time() < self._mends_at:
            if self._behave is hang:
                with trio.move_on_after(deadline):
                    await trio.sleep(self._mends_at - trio.current_time())
                raise ApiUnreachable("no answer")
            self._behave()
        device = {"request": "r", "driver": "gpu.birentech.com", "pool": "node-7", "device": CARD}
        return {
            "metadata": {"uid": f"uid-{path.rpartition('/')[2]}"},
            "status": {"allocation": {"devices": {"results": [device]}}},
        }


def fail(error: ApiError) -> Callable[[], None]:
    def behave() -> None:
        raise error

    return behave


def hang() -> None:
    """No answer before the deadline."""


def service_of(folder: Path, api: Api) -> ClaimService:
    """The service of a node with one card, that calls `api`."""
    offers = Board[Offer]()
    pool = pool_of(Inventory((DeviceList(GPU, (whole(0),)),)), None)
    offers.post(Offer(pool, HostFacts(), holders={}))
    return ClaimService(
        cast("ApiServer", api), "node-7", offers, ClaimFiles(folder / "cdi"), folder / "lock",
        Counters(),
    )  # fmt: skip


async def prepare(
    folder: Path, behave: Callable[[], None], mends_at: float, *names: str
) -> tuple[dict[str, Any], float, Api]:
    """The answers, the seconds that they took, and the API server."""
    began = trio.current_time()
    api = Api(behave, began + mends_at)
    service = service_of(folder, api)
    claims = [ClaimId("team", name, f"uid-{name}") for name in names]
    answers = dict(await service.prepare(claims))
    return answers, trio.current_time() - began, api


@pytest.mark.parametrize("seconds", [0.4, 5.0, 30.0])
@pytest.mark.parametrize(
    "behave", [fail(ApiUnreachable("refused")), hang], ids=["refuses", "hangs"]
)
async def test_an_api_server_that_is_away_for_a_while_costs_the_pod_nothing_more(
    tmp_path: Path, autojump_clock: MockClock, behave: Callable[[], None], seconds: float
) -> None:
    answers, took, _ = await prepare(tmp_path, behave, seconds, "a")
    assert isinstance(answers["uid-a"], list)
    assert seconds <= took <= seconds + CALL_DEADLINE


@pytest.mark.parametrize("claims", ["a", "abc"])
@pytest.mark.parametrize(
    "behave", [fail(ApiUnreachable("refused")), hang], ids=["refuses", "hangs"]
)
async def test_an_api_server_that_stays_away_is_given_up_before_the_kubelet_does(
    tmp_path: Path, autojump_clock: MockClock, behave: Callable[[], None], claims: str
) -> None:
    answers, took, _ = await prepare(tmp_path, behave, 1000.0, *claims)
    assert all(isinstance(each, str) for each in answers.values())
    assert PATIENCE <= took < KUBELETS - 1


async def test_each_claim_of_a_call_has_its_own_answer_at_its_own_time(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A claim that waits holds up no other one, and three that wait take no longer than one."""
    called: list[tuple[str, float]] = []

    class OneIsMissing(Api):
        async def call(self, method: str, path: str, *, deadline: float = CALL_DEADLINE) -> Any:
            called.append((path[-1], trio.current_time() - began))
            if path.endswith("/first"):
                raise ApiUnreachable("busy")
            found = await super().call(method, path, deadline=deadline)
            if path.endswith("/held"):
                found["status"]["allocation"]["devices"]["results"][0]["device"] = "not-here"
            return found

    began = trio.current_time()
    service = service_of(tmp_path, OneIsMissing(hang, 0.0))
    names = ("first", "held", "third")
    answers = await service.prepare([ClaimId("team", each, f"uid-{each}") for each in names])
    assert [type(answers[f"uid-{each}"]) for each in names] == [str, str, list]
    assert "busy" in answers["uid-first"]
    assert "not-here is not on this node any more" in answers["uid-held"]
    assert ("d", 0.0) in called, "the third claim was asked for at once"
    assert PATIENCE <= trio.current_time() - began < KUBELETS - 1


@pytest.mark.parametrize("call", [ClaimService.prepare, ClaimService.unprepare])
async def test_claims_in_a_directory_that_hangs_are_answered_before_the_kubelet_gives_up(
    tmp_path: Path,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[..., Awaitable[dict[str, Any]]],
) -> None:
    async def hang(_self: WorkerThread, _call: Callable[[], Any]) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(WorkerThread, "run", hang)
    began = trio.current_time()
    claims = [ClaimId("team", each, f"uid-{each}") for each in "abc"]
    with trio.fail_after(KUBELETS):
        answers = await call(service_of(tmp_path, Api(fail(ApiNotFound("")), 0.0)), claims)
    assert all("does not answer" in each for each in answers.values())
    assert len(answers) == 3
    assert trio.current_time() - began < KUBELETS - 1


async def test_a_server_that_asks_to_wait_is_asked_again_after_that(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    answers, took, api = await prepare(tmp_path, fail(ApiUnreachable("busy", 7.0)), 6.0, "a")
    assert isinstance(answers["uid-a"], list)
    assert took >= 7.0
    assert api.calls <= 3, "the first wait may end at once"


async def test_a_server_that_has_just_started_may_refuse_for_a_moment(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    answers, _, _ = await prepare(tmp_path, fail(ApiForbidden("no role yet")), 3.0, "a")
    assert isinstance(answers["uid-a"], list)
    answers, took, _ = await prepare(tmp_path, fail(ApiForbidden("no role")), 1000.0, "b")
    assert "no role" in answers["uid-b"]
    assert took < 10


async def test_a_claim_that_is_gone_is_not_waited_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    answers, took, _ = await prepare(tmp_path, fail(ApiNotFound("gone")), 1000.0, "a")
    assert "does not exist any more" in answers["uid-a"]
    assert took == 0
