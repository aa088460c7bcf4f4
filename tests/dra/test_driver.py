"""The driver answers a kubelet that is grpcio: registration, both versions of Prepare, and health."""

import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.cluster.api_server import ApiServer
from biren_plugin.cluster.credentials import PodCredentials, load_from
from biren_plugin.core.dra.pool import pool_of
from biren_plugin.core.model import DeviceList, HostFacts, Inventory
from biren_plugin.core.observed import Holder
from biren_plugin.daemon_state import Counters
from biren_plugin.dra import claim_service, driver
from biren_plugin.dra.claim_service import ClaimService, Offer
from biren_plugin.dra.driver import Registered, run_driver
from biren_plugin.dra.driver_sockets import (
    LONGEST_PATH,
    DriverSockets,
    remove_stale,
    sockets_of,
)
from biren_plugin.errors import PluginSocketGone, SocketUnusable
from biren_plugin.files.claim_files import ClaimFiles
from biren_plugin.worker_thread import WorkerThread
from tests.core.dra.test_pool import whole
from tests.kubelet.protos import load
from tests.support.api_server import StandInApiServer, stand_in_api_server
from tests.support.cards import GPU
from tests.support.clocks import settled

CLAIMS = "/apis/resource.k8s.io/v1/namespaces/team/resourceclaims"
FIRST, SECOND = "gpu-0000-01-00-0", "gpu-0000-02-00-0"


def offer(
    *numbers: int, holders: dict[tuple[str, str], Holder] | None = None, **about: Any
) -> Offer:
    lists = (DeviceList(GPU, tuple(whole(number, **about) for number in numbers)),)
    return Offer(pool_of(Inventory(lists), "1.12.0", holders), HostFacts(), holders=holders or {})


class Node:
    """A driver on sockets of its own, an API server, and the kubelet's side of the conversation."""

    def __init__(self, folder: Path, api: ApiServer, server: StandInApiServer) -> None:
        self.sockets: DriverSockets = sockets_of(folder, "pod-1")
        self.claims = folder / "cdi"
        self.offers = Board[Offer]()
        self.registered = Board[Registered]()
        self.server = server
        self.service = ClaimService(
            api, "node-7", self.offers, ClaimFiles(self.claims), self.sockets.lock, Counters()
        )

    def allocate(self, name: str, *devices: str, **more: Any) -> None:
        """The scheduler gave these devices to the claim."""
        results = [
            {"request": "cards", "driver": "gpu.birentech.com", "pool": "node-7", "device": each}
            for each in devices
        ]
        allocation = {"devices": {"results": results}}
        self.server.put(
            f"{CLAIMS}/{name}",
            {
                "metadata": {"name": name, "uid": f"uid-{name}"},
                "status": {"allocation": allocation},
            },
        )

    async def call(self, service: Callable[[Any], Any], path: Path) -> Any:
        """What `service(channel)` returns, called in a thread by grpcio."""

        def run() -> Any:
            with grpc.insecure_channel(f"unix:{path}") as channel:
                return service(channel)

        return await trio.to_thread.run_sync(run)

    async def prepare(self, name: str, version: str = "dra_v1") -> Any:
        """The kubelet's NodePrepareResources for one claim; its entry in the answer."""
        protos = load(version)

        def ask(channel: Any) -> Any:
            stub = protos.stub(channel, "DRAPlugin")
            claim = protos.Claim(namespace="team", uid=f"uid-{name}", name=name)
            return stub.NodePrepareResources(
                protos.NodePrepareResourcesRequest(claims=[claim]), timeout=20
            )

        answer = await self.call(ask, self.sockets.plugin)
        assert list(answer.claims) == [f"uid-{name}"]
        return answer.claims[f"uid-{name}"]

    async def unprepare(self, name: str) -> str:
        """The kubelet's NodeUnprepareResources for one claim; its error."""
        protos = load("dra_v1")

        def ask(channel: Any) -> Any:
            claim = protos.Claim(namespace="team", uid=f"uid-{name}", name=name)
            request = protos.NodeUnprepareResourcesRequest(claims=[claim])
            return protos.stub(channel, "DRAPlugin").NodeUnprepareResources(request, timeout=20)

        answer = await self.call(ask, self.sockets.plugin)
        return str(answer.claims[f"uid-{name}"].error)

    def files(self) -> list[str]:
        return sorted(each.name for each in self.claims.glob("*")) if self.claims.exists() else []


@pytest.fixture
def server() -> Iterator[StandInApiServer]:
    with stand_in_api_server() as running:
        yield running


@pytest.fixture
async def node(server: StandInApiServer) -> AsyncIterator[Node]:
    with tempfile.TemporaryDirectory(prefix="br") as folder:
        account = Path(folder) / "account"
        api = ApiServer(PodCredentials(server.account(account), account).load)
        found = Node(Path(folder), api, server)
        found.offers.post(offer(0, 1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                run_driver, found.sockets, found.service, found.registered, WorkerThread()
            )
            with trio.fail_after(10):
                while not found.sockets.registration.exists():  # noqa: ASYNC110 - a file of the driver's
                    await trio.sleep(0.01)
            yield found
            nursery.cancel_scope.cancel()
        assert not found.sockets.registration.exists()
        assert not found.sockets.plugin.exists()
        await api.close()


async def test_the_kubelet_learns_the_drivers_socket_and_reports_its_verdict(node: Node) -> None:
    protos = load("pluginregistration")

    def register(channel: Any) -> Any:
        stub = protos.stub(channel, "Registration")
        info = stub.GetInfo(protos.InfoRequest(), timeout=10)
        stub.NotifyRegistrationStatus(
            protos.RegistrationStatus(plugin_registered=False, error="no version"), timeout=10
        )
        stub.NotifyRegistrationStatus(protos.RegistrationStatus(plugin_registered=True), timeout=10)
        return info

    info = await node.call(register, node.sockets.registration)
    assert (info.type, info.name) == ("DRAPlugin", "gpu.birentech.com")
    assert info.endpoint == str(node.sockets.plugin)
    assert "v1.DRAPlugin" in info.supported_versions
    assert node.registered.latest == Registered(taken=True)


@pytest.mark.parametrize("name", ["plugin", "registration"])
async def test_a_deleted_socket_ends_this_life_of_the_driver_at_the_next_look(
    name: str, autojump_clock: MockClock
) -> None:
    with tempfile.TemporaryDirectory(prefix="br") as folder:
        sockets = sockets_of(Path(folder), "pod-1")
        service = ClaimService(
            ApiServer(load_from(None)), "node-7", Board[Offer](), ClaimFiles(Path(folder)),
            sockets.lock, Counters(),
        )  # fmt: skip
        gone = pytest.RaisesExc(PluginSocketGone, match=f"{getattr(sockets, name)} was deleted")
        with pytest.RaisesGroup(gone, flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    run_driver, sockets, service, Board[Registered](), WorkerThread()
                )
                await settled()
                getattr(sockets, name).unlink()
                deleted = trio.current_time()
        assert trio.current_time() - deleted <= driver._LOOK_INTERVAL


@pytest.mark.parametrize("version", ["dra_v1", "dra_v1beta1"])
async def test_a_claim_is_prepared_the_same_way_each_time_and_released(
    node: Node, version: str
) -> None:
    node.allocate("two", FIRST, SECOND)
    first = await node.prepare("two", version)
    assert [device.device_name for device in first.devices] == [FIRST, SECOND]
    spec = json.loads((node.claims / "birentech.com-claim_uid-two.json").read_text())
    ids = [f"birentech.com/claim={each['name']}" for each in spec["devices"]]
    assert [list(device.cdi_device_ids) for device in first.devices] == [[each] for each in ids]
    assert await node.prepare("two", version) == first
    assert await node.unprepare("two") == ""
    assert node.files() == []
    assert await node.unprepare("two") == "", "an unknown claim is released already"


async def test_a_card_that_another_claim_holds_is_waited_for(
    node: Node, nursery: trio.Nursery
) -> None:
    node.allocate("old", FIRST)
    node.allocate("new", FIRST)
    await node.prepare("old")
    answers = []

    async def prepare_new() -> None:
        answers.append(await node.prepare("new"))

    async with trio.open_nursery() as waiting:
        waiting.start_soon(prepare_new)
        await trio.sleep(0.1)  # the call is under way: nothing says so
        assert not answers
        assert await node.unprepare("old") == ""
    assert [device.device_name for device in answers[0].devices] == [FIRST]


async def test_a_card_that_stays_held_is_refused_with_the_holder(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim_service, "PATIENCE", 0.0)
    node.allocate("old", FIRST)
    node.allocate("new", FIRST)
    await node.prepare("old")
    answer = await node.prepare("new")
    assert "still held by the claim with uid uid-old" in answer.error
    node.offers.post(offer(0, 1, holders={(GPU, "card_1"): Holder("team", "plugin-pod")}))
    node.allocate("third", SECOND)
    assert "held by pod team/plugin-pod" in (await node.prepare("third")).error


async def test_a_claim_that_is_gone_or_another_is_refused_at_once(node: Node) -> None:
    assert "does not exist any more" in (await node.prepare("nobody")).error
    node.allocate("two", FIRST)
    node.server.put(f"{CLAIMS}/two", {"metadata": {"name": "two", "uid": "another"}})
    assert "was replaced" in (await node.prepare("two")).error
    assert node.files() == []


async def test_an_api_server_that_is_away_for_a_moment_is_waited_for(node: Node) -> None:
    node.allocate("two", FIRST)
    refusals = iter([(503, "starting"), (503, "starting")])
    node.server.refuse = lambda _method, _path: next(refusals, None)
    assert not (await node.prepare("two")).error


async def test_each_version_of_the_health_service_sends_the_whole_list_with_reasons(
    node: Node,
) -> None:
    node.offers.post(offer(0, reasons=("3 ECC errors",), faults=("ecc",)))
    for version in ("dra_health_v1", "dra_health_v1alpha1"):
        protos = load(version)

        def first(channel: Any, protos: Any = protos) -> Any:
            stub = protos.stub(channel, "DRAResourceHealth")
            return next(
                iter(stub.NodeWatchResources(protos.NodeWatchResourcesRequest(), timeout=10))
            )

        (device,) = (await node.call(first, node.sockets.plugin)).devices
        assert (device.device.device_name, device.health) == (FIRST, 2)
        assert device.message == "3 ECC errors"


def test_socket_names_fit_or_say_what_to_do(tmp_path: Path) -> None:
    uid = "6b1f0a52-1111-2222-3333-444455556666"
    sockets = sockets_of(Path("/var/snap/microk8s/common/var/lib/kubelet"), uid)
    for path in (sockets.plugin, sockets.registration):
        assert len(str(path)) <= LONGEST_PATH
    assert uid in sockets_of(Path("/k"), uid).registration.name
    with pytest.raises(SocketUnusable, match="give a shorter --kubelet-root"):
        sockets_of(Path("/" + "x" * 100), uid)


async def test_sockets_of_a_killed_instance_are_removed_and_those_of_a_living_one_stay(
    node: Node,
) -> None:
    dead = sockets_of(node.claims.parent, "pod-0")
    for path in (dead.plugin, dead.registration):
        listener = trio.socket.socket(trio.socket.AF_UNIX)
        await listener.bind(str(path))
        listener.close()
    assert set(remove_stale(node.sockets)) == {dead.plugin, dead.registration}
    assert node.sockets.plugin.exists()
