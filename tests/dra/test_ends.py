"""Whatever ends in the middle - a call, the driver, the kubelet's directory - leaves nothing wrong behind."""

import fcntl
import logging
import os
import re
import shutil
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import grpc
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from biren_plugin import daemon, unix_sockets
from biren_plugin.board import Board
from biren_plugin.cluster.api_server import ApiServer
from biren_plugin.cluster.credentials import load_from
from biren_plugin.core.dra.claims import ClaimId
from biren_plugin.core.settings import Settings
from biren_plugin.daemon import run_daemon, run_until_signal
from biren_plugin.daemon_state import Counters
from biren_plugin.device_plugin import kubelet_folder
from biren_plugin.dra import driver
from biren_plugin.dra.claim_service import ClaimService, Offer
from biren_plugin.dra.driver import serve_driver
from biren_plugin.errors import FolderDead
from biren_plugin.files.claim_files import ClaimFiles
from biren_plugin.last_calls import PATIENCE, LastCalls
from biren_plugin.signals import STOPPING, STRAY
from biren_plugin.unix_sockets import is_served
from biren_plugin.worker_thread import WorkerThread
from tests.dra.test_driver import FIRST, offer
from tests.kubelet.protos import load
from tests.support.clocks import Gate, patience, settled
from tests.support.documents import ROOT
from tests.support.dra_node import CLAIMS, NODE, DraNode, in_thread


@pytest.fixture
def node(idle_node: DraNode) -> DraNode:
    return idle_node


@pytest.fixture
async def service(node: DraNode) -> AsyncIterator[ClaimService]:
    offers = Board[Offer]()
    offers.post(offer(0, 1))
    async with ApiServer(load_from(node.settings.kubeconfig)) as api:
        yield ClaimService(
            api, NODE, offers, ClaimFiles(node.claim_dir), node.root / "claims.lock", Counters()
        )


async def test_a_cancelled_call_leaves_a_claim_prepared_that_another_call_has_prepared_since(
    node: DraNode, service: ClaimService
) -> None:
    claim = ClaimId(*node.allocate("cards", FIRST))
    thread = service._thread._room
    first = trio.CancelScope()
    answers = []

    async def prepare_first() -> None:
        with first:
            await service.prepare([claim])

    async def prepare() -> None:
        answers.append(await service.prepare([claim]))

    lock = os.open(node.root / "claims.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(prepare_first)
            await node.until(lambda: thread.statistics().borrowed_tokens == 1)
            nursery.start_soon(prepare)  # for another pod that shares the claim
            await node.until(lambda: thread.statistics().tasks_waiting == 1)
            first.cancel()
            await node.until(lambda: thread.statistics().tasks_waiting == 2)
            fcntl.flock(lock, fcntl.LOCK_UN)
    finally:
        os.close(lock)
    (devices,) = answers[0].values()
    assert not isinstance(devices, str), devices
    assert [each.device for each in devices] == [FIRST]
    assert list(node.files()) == [claim.uid]


async def test_a_call_that_is_cancelled_while_its_file_is_written_leaves_none(
    node: DraNode, service: ClaimService
) -> None:
    claim = ClaimId(*node.allocate("cards", FIRST))
    thread = service._thread._room
    lock = os.open(node.root / "claims.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.prepare, [claim])
            await node.until(lambda: thread.statistics().borrowed_tokens == 1)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await node.until(lambda: thread.statistics().tasks_waiting == 1)
            fcntl.flock(lock, fcntl.LOCK_UN)
    finally:
        os.close(lock)
    assert node.files() == {}


async def test_an_ending_driver_is_served_until_it_is_deregistered(
    node: DraNode, service: ClaimService, mock_clock: MockClock
) -> None:
    """This clock stands: the time after which the driver is served no longer in any case never comes."""
    path = node.root / "dra.sock"
    deregistered, ended = trio.Event(), trio.Event()
    thread = WorkerThread()
    life = trio.CancelScope()

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        with life:
            await serve_driver(
                path, service, deregistered, lambda _name: None, thread, task_status=task_status
            )
        ended.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        life.cancel()
        await settled()
        assert await is_served(path, thread)
        deregistered.set()
        await ended.wait()
    assert not path.exists()


async def test_a_call_under_way_is_answered_before_the_driver_ends(
    node: DraNode, service: ClaimService, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    """The kubelet would call again only after 60 to 90 s, and the pod would wait for so long.

    This clock stands: however busy the machine is, the answer is not late.
    """
    prepare = service.prepare
    called, life = trio.Event(), trio.CancelScope()

    async def prepare_slowly(claims: Sequence[ClaimId]) -> Mapping[str, Any]:
        called.set()
        await wait_all_tasks_blocked(0.05)
        assert life.cancel_called
        return await prepare(claims)

    monkeypatch.setattr(service, "prepare", prepare_slowly)
    path = node.root / "dra.sock"
    deregistered = trio.Event()
    deregistered.set()
    protos = load("dra_v1")
    namespace, name, uid = node.allocate("cards", FIRST)
    claim = protos.Claim(namespace=namespace, name=name, uid=uid)
    request = protos.NodePrepareResourcesRequest(claims=[claim])

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        with life:
            await serve_driver(
                path,
                service,
                deregistered,
                lambda _name: None,
                WorkerThread(),
                task_status=task_status,
            )

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        with grpc.insecure_channel(f"unix:{path}") as channel:
            future = protos.stub(channel, "DRAPlugin").NodePrepareResources.future(request)
            await called.wait()
            life.cancel()
            answer = await in_thread(lambda: future.result(timeout=20))
    assert [each.device_name for each in answer.claims[uid].devices] == [FIRST]


@pytest.fixture
def handlers() -> Iterator[None]:
    """Put the handlers of signals back, which a daemon sets for its process."""
    before = {number: signal.getsignal(number) for number in (*STOPPING, *STRAY)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
async def test_a_signal_ends_the_daemon_once_a_claim_that_waits_for_its_card_is_prepared(
    node: DraNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays registered meanwhile: the release that the claim waits for is a call too."""
    monkeypatch.setattr(driver, "_GOODBYE", 0.0)
    prepared = []

    async def prepare(claim: tuple[str, str, str]) -> None:
        prepared.append(await in_thread(lambda: node.kubelet.prepare("team/next", claim)))

    node.pod_resources.start()
    try:
        with node.kubelet:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_until_signal, node.settings)
                await in_thread(lambda: node.kubelet.wait_for("registered"))
                await node.until(lambda: bool(node.devices()))
                card, *_ = node.devices()
                first, second = node.allocate("first", card), node.allocate("second", card)
                await in_thread(lambda: node.kubelet.prepare("team/train", first))
                nursery.start_soon(prepare, second)
                await node.until(lambda: ("GET", f"{CLAIMS}/second") in node.server.requests)
                signal.raise_signal(signal.SIGTERM)
                await wait_all_tasks_blocked(0.05)
                assert not prepared
                await in_thread(lambda: node.kubelet.unprepare("team/train", first[2]))
        [devices] = prepared
        assert [each["device"] for each in devices["uid-second"]] == [card]
    finally:
        node.pod_resources.stop()


@pytest.mark.parametrize("call", [ClaimService.prepare, ClaimService.unprepare])
async def test_a_call_about_a_claim_is_waited_for_until_it_is_answered(
    node: DraNode,
    service: ClaimService,
    call: Callable[[ClaimService, Sequence[ClaimId]], Awaitable[object]],
) -> None:
    claim = ClaimId(*node.allocate("cards", FIRST))
    ended = trio.Event()
    hanging = Gate()

    async def wait() -> None:
        await service._last_calls.ended()
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(service._thread.run, hanging.wait)  # a disk that does not answer
        await settled()
        nursery.start_soon(call, service, [claim])
        await settled()
        nursery.start_soon(wait)
        await settled()
        assert not ended.is_set()
        hanging.set()
        await ended.wait()


@pytest.mark.usefixtures("handlers")
async def test_a_daemon_does_not_wait_for_a_call_that_is_never_answered(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    called = trio.Event()

    async def call_for_ever(_settings: Settings, last_calls: LastCalls) -> None:
        with last_calls.one():
            called.set()
            await trio.sleep_forever()

    monkeypatch.setattr(daemon, "run_daemon", call_for_ever)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_until_signal, Settings())
        await called.wait()
        began = trio.current_time()
        signal.raise_signal(signal.SIGTERM)
    assert trio.current_time() - began == PATIENCE


def test_the_end_of_a_daemon_fits_into_the_time_of_its_pod() -> None:
    ending = PATIENCE + driver._GOODBYE + unix_sockets.GOODBYE
    for path in ("manifests/base/daemonset.yaml", "manifests/chart/templates/daemonset.yaml"):
        [grace] = re.findall(r"terminationGracePeriodSeconds: (\d+)", (ROOT / path).read_text())
        assert ending < float(grace)


async def test_a_kubelet_directory_deleted_under_its_mount_ends_the_process_with_advice(
    node: DraNode, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubelet_folder, "INTERVAL", 1.0)  # an empty directory's end is no event
    plugins = node.settings.device_plugin_dir
    held = os.open(plugins, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # As a bind mount does, this path leads to the folder even when that is deleted.
        mount = Path(f"/proc/self/fd/{held}")
        reason = pytest.RaisesExc(FolderDead, match="re-created elsewhere: .*restart the pod")
        with pytest.RaisesGroup(reason), node.kubelet:
            async with trio.open_nursery() as nursery:
                settings = attrs.evolve(node.settings, device_plugin_dir=mount)
                nursery.start_soon(run_until_signal, settings)
                await node.until(lambda: bool(node.devices()))
                shutil.rmtree(plugins)
                plugins.mkdir()
                await trio.sleep(patience())
                nursery.cancel_scope.cancel()
    finally:
        os.close(held)
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


async def test_a_daemon_ends_while_its_sockets_directory_hangs(
    node: DraNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, released = threading.Event(), threading.Event()

    def hang(_sockets: object) -> list[Path]:
        hangs.set()
        released.wait(5)
        released.set()
        return []

    monkeypatch.setattr("biren_plugin.dra.offering.remove_stale", hang)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_daemon, node.settings)
        await node.until(hangs.is_set)
        nursery.cancel_scope.cancel()
    assert not released.is_set()
    released.set()
