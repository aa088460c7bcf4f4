"""The test kubelet does what a kubelet does, shown against a plugin of a few lines."""

import queue
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import grpc
import pytest

from tests.kubelet.client import KubeletProcess
from tests.kubelet.protos import load

RESOURCE = "birentech.com/gpu"


class StandIn:
    """A device plugin on grpcio that notes what it is asked; a context manager."""

    def __init__(self, folder: Path, endpoint: str = "plugin.sock", *ids: str) -> None:
        self.folder = folder
        self.endpoint = endpoint
        self.lists: queue.Queue[dict[str, str] | None] = queue.Queue()
        self.offer(dict.fromkeys(ids or ("a", "b", "c"), "Healthy"))
        self.calls: list[tuple[str, Any]] = []
        self.prefers: list[str] | None = None
        self.refuses: str | None = None
        self.allocating = threading.Event()
        self.may_allocate = threading.Event()
        self.may_allocate.set()
        self.stream_closed = threading.Event()
        methods = {
            "GetDevicePluginOptions": self._noted("GetDevicePluginOptions", self._options),
            "GetPreferredAllocation": self._noted("GetPreferredAllocation", self._prefer),
            "Allocate": self._noted("Allocate", self._allocate),
            "ListAndWatch": self._watch,
        }
        self.server = grpc.server(ThreadPoolExecutor(8))
        self.server.add_generic_rpc_handlers((load().handler("DevicePlugin", methods),))
        self.server.add_insecure_port(f"unix:{folder / endpoint}")

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.may_allocate.set()
        self.lists.put(None)
        self.server.stop(None).wait()

    def offer(self, devices: dict[str, str]) -> None:
        """Send a list: the health of each id."""
        self.lists.put(devices)

    def register(self, **changes: Any) -> None:
        """Register as a plugin does; raises grpc.RpcError."""
        fields = {"version": "v1beta1", "endpoint": self.endpoint, "resource_name": RESOURCE}
        options = load().DevicePluginOptions(get_preferred_allocation_available=True)
        request = load().RegisterRequest(**{**fields, "options": options, **changes})
        with grpc.insecure_channel(f"unix:{self.folder / 'kubelet.sock'}") as channel:
            load().stub(channel, "Registration").Register(request, timeout=15)
        self.calls.append(("Register answered", None))

    def named(self, name: str) -> list[Any]:
        """The requests of every call of that method."""
        return [request for called, request in self.calls if called == name]

    def _noted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def noting(request: Any, context: Any) -> Any:
            self.calls.append((name, request))
            return method(request, context)

        return noting

    def _options(self, request: Any, context: Any) -> Any:
        return load().DevicePluginOptions(
            get_preferred_allocation_available=self.prefers is not None
        )

    def _prefer(self, request: Any, context: Any) -> Any:
        answer = load().ContainerPreferredAllocationResponse(deviceIDs=self.prefers)
        return load().PreferredAllocationResponse(container_responses=[answer])

    def _allocate(self, request: Any, context: Any) -> Any:
        self.allocating.set()
        self.may_allocate.wait()
        if self.refuses:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.refuses)
        answers = [
            load().ContainerAllocateResponse(envs={"IDS": ",".join(sorted(c.devices_ids))})
            for c in request.container_requests
        ]
        return load().AllocateResponse(container_responses=answers)

    def _watch(self, request: Any, context: Any) -> Iterator[Any]:
        context.add_callback(self.stream_closed.set)
        context.add_callback(lambda: self.lists.put(None))
        while (devices := self.lists.get()) is not None:
            listed = [load().Device(ID=i, health=health) for i, health in devices.items()]
            yield load().ListAndWatchResponse(devices=listed)


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[KubeletProcess]:
    with KubeletProcess(tmp_path, "--seed", "1") as process:
        yield process


@pytest.fixture
def plugin(kubelet: KubeletProcess) -> Iterator[StandIn]:
    with StandIn(kubelet.folder) as stand_in:
        yield stand_in


def test_dials_back_before_it_answers_register(kubelet: KubeletProcess, plugin: StandIn) -> None:
    plugin.register()
    kubelet.wait_for_list(RESOURCE, healthy={"a", "b", "c"}, unhealthy=0)
    assert [name for name, _ in plugin.calls] == ["GetDevicePluginOptions", "Register answered"]
    names = [event["event"] for event in kubelet.events]
    assert names == ["listening", "register", "dialled", "registered", "list"]
    registered = kubelet.wait_for_event("registered", resource=RESOURCE, endpoint="plugin.sock")
    assert registered["options"]["get_preferred_allocation_available"] is False


def test_older_kubelet_dials_after_its_answer_and_trusts_the_request(tmp_path: Path) -> None:
    with KubeletProcess(tmp_path, "--dials", "after") as kubelet, StandIn(tmp_path) as plugin:
        plugin.register()
        kubelet.wait_for_list(RESOURCE, healthy=3)
        names = [event["event"] for event in kubelet.events]
        assert names == ["listening", "register", "registered", "dialled", "list"]
        assert plugin.named("GetDevicePluginOptions") == []
        assert kubelet.events[2]["options"]["get_preferred_allocation_available"] is True


def test_held_answer_keeps_the_stream_closed(kubelet: KubeletProcess, plugin: StandIn) -> None:
    kubelet.command("hold")
    registering = threading.Thread(target=plugin.register)
    registering.start()
    kubelet.wait_for_event("register_held")
    assert kubelet.latest(RESOURCE) is None
    kubelet.command("release")
    registering.join()
    kubelet.wait_for_list(RESOURCE, healthy=3)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": "v1alpha"}, "not supported by kubelet"),
        ({"resource_name": "gpu"}, "is invalid"),
        ({"resource_name": "kubernetes.io/gpu"}, "is invalid"),
    ],
)
def test_refuses_what_it_cannot_register(
    kubelet: KubeletProcess, plugin: StandIn, changes: dict[str, str], why: str
) -> None:
    with pytest.raises(grpc.RpcError, match=why):
        plugin.register(**changes)
    kubelet.wait_for_event("register_refused")


def test_register_fails_if_nobody_listens_on_the_endpoint(tmp_path: Path) -> None:
    with (
        KubeletProcess(tmp_path, "--dial-timeout", "0.1") as kubelet,
        StandIn(tmp_path) as plugin,
        pytest.raises(grpc.RpcError, match="failed to dial device plugin"),
    ):
        plugin.register(endpoint="nobody.sock")
    assert kubelet.latest(RESOURCE) is None


def test_refuses_the_next_register_only(kubelet: KubeletProcess, plugin: StandIn) -> None:
    kubelet.command("refuse_next_register", text="not today")
    with pytest.raises(grpc.RpcError, match="not today"):
        plugin.register()
    plugin.register()
    kubelet.wait_for_list(RESOURCE, healthy=3)


def test_each_list_is_the_whole_truth(kubelet: KubeletProcess, plugin: StandIn) -> None:
    plugin.register()
    plugin.offer({"a": "Healthy", "b": "Unhealthy"})
    kubelet.wait_for_list(RESOURCE, healthy={"a"}, unhealthy={"b"})
    state = kubelet.state()
    assert state["devices"] == {RESOURCE: {"a": "Healthy", "b": "Unhealthy"}}
    assert state["capacity"] == {RESOURCE: 2}
    assert state["allocatable"] == {RESOURCE: 1}


def test_after_a_second_register_the_last_sender_wins(
    kubelet: KubeletProcess, plugin: StandIn
) -> None:
    plugin.register()
    kubelet.wait_for_list(RESOURCE, healthy={"a", "b", "c"})
    with StandIn(kubelet.folder, "second.sock", "x") as second:
        second.register()
        kubelet.wait_for_list(RESOURCE, healthy={"x"})
        plugin.offer({"a": "Healthy"})
        kubelet.wait_for_list(RESOURCE, healthy={"a"})
        second.offer({"y": "Healthy"})
        kubelet.wait_for_list(RESOURCE, healthy={"y"})
        kubelet.admit(RESOURCE, 1)
        assert len(second.named("Allocate")) == 1


def test_the_end_of_a_replaced_stream_disconnects_the_new_client(
    kubelet: KubeletProcess, plugin: StandIn
) -> None:
    plugin.register()
    kubelet.wait_for_list(RESOURCE, healthy=3)
    with StandIn(kubelet.folder, "second.sock", "x") as second:
        second.register()
        kubelet.wait_for_list(RESOURCE, healthy={"x"})
        plugin.lists.put(None)
        assert second.stream_closed.wait(10)
    kubelet.wait_for_event("stream_ended", endpoint="second.sock")
    kubelet.wait_for_event("disconnected", resource=RESOURCE)
    assert kubelet.state()["allocatable"] == {RESOURCE: 0}


def test_a_failed_register_orphans_the_client_that_was_live(tmp_path: Path) -> None:
    with KubeletProcess(tmp_path, "--dial-timeout", "0.1") as kubelet:
        with StandIn(tmp_path) as plugin:
            plugin.register()
            kubelet.wait_for_list(RESOURCE, healthy=3)
            with pytest.raises(grpc.RpcError):
                plugin.register(endpoint="nobody.sock")
        kubelet.wait_for_event("stream_ended")
        assert kubelet.state()["allocatable"] == {RESOURCE: 3}


def test_an_ended_stream_makes_every_device_unhealthy(
    kubelet: KubeletProcess, plugin: StandIn
) -> None:
    plugin.register()
    kubelet.wait_for_list(RESOURCE, healthy=3)
    assert kubelet.command("end_stream", resource=RESOURCE)["ended"]
    assert plugin.stream_closed.wait(10)
    kubelet.wait_for_event("disconnected", resource=RESOURCE)
    assert kubelet.wait_for_event("stream_ended")["code"] == "CANCELLED"
    assert kubelet.latest(RESOURCE) is None
    state = kubelet.state()
    assert (state["capacity"], state["allocatable"]) == ({RESOURCE: 3}, {RESOURCE: 0})
    assert "no healthy devices present" in kubelet.admit(RESOURCE, 1)["details"]


def test_admits_with_the_preferred_devices_and_remembers_them(
    kubelet: KubeletProcess, plugin: StandIn
) -> None:
    plugin.prefers = ["gone", "c", "b"]
    plugin.register()
    kubelet.wait_for_list(RESOURCE, healthy=3)
    admitted = kubelet.admit(RESOURCE, 2)
    assert admitted["ids"] == ["b", "c"]
    assert admitted["response"] == {
        "envs": {"IDS": "b,c"},
        "mounts": [],
        "devices": [],
        "annotations": {},
        "cdi_devices": [],
    }
    refused = kubelet.admit(RESOURCE, 2)
    assert refused["code"] is None
    assert "Requested: 2, Available: 1" in refused["message"]
    kubelet.command("free", resource=RESOURCE, ids=["b"])
    assert kubelet.admit(RESOURCE, 2)["ids"] == ["a", "b"]


def test_available_ids_include_those_that_must_be_included(
    kubelet: KubeletProcess, plugin: StandIn
) -> None:
    plugin.prefers = []
    plugin.register()
    kubelet.wait_for_list(RESOURCE, healthy=3)
    init = kubelet.admit(RESOURCE, 1)["ids"]
    assert set(init) < set(kubelet.admit(RESOURCE, 2, must_include=init)["ids"])
    (container,) = plugin.named("GetPreferredAllocation")[-1].container_requests
    assert sorted(container.available_deviceIDs) == ["a", "b", "c"]
    assert (list(container.must_include_deviceIDs), container.allocation_size) == (init, 2)
    asked = len(plugin.named("GetPreferredAllocation"))
    assert kubelet.admit(RESOURCE, 1, must_include=init)["ids"] == init
    assert len(plugin.named("GetPreferredAllocation")) == asked, "reused devices sufficed"


def test_the_plugins_refusal_reaches_the_user_and_holds_no_device(
    kubelet: KubeletProcess, plugin: StandIn
) -> None:
    plugin.register()
    kubelet.wait_for_list(RESOURCE, healthy=3)
    plugin.refuses = "card a overheats"
    refused = kubelet.admit(RESOURCE, 3)
    assert (refused["ok"], refused["code"]) == (False, "FAILED_PRECONDITION")
    assert refused["details"] == "card a overheats"
    assert refused["message"].startswith("Allocate failed due to rpc error")
    plugin.refuses = None
    assert kubelet.admit(RESOURCE, 3)["ok"]


def test_raw_allocate_carries_several_containers(kubelet: KubeletProcess, plugin: StandIn) -> None:
    plugin.register()
    kubelet.wait_for_list(RESOURCE, healthy=3)
    answer = kubelet.allocate(RESOURCE, ["a"], ["zz", "a"])
    assert [r["envs"]["IDS"] for r in answer["responses"]] == ["a", "a,zz"]
    assert kubelet.state()["allocated"] == {}


def test_dies_of_a_list_without_the_device_that_is_being_allocated(
    kubelet: KubeletProcess, plugin: StandIn
) -> None:
    plugin.register()
    kubelet.wait_for_list(RESOURCE, healthy=3)
    plugin.may_allocate.clear()
    kubelet.send("admit", resource=RESOURCE, count=3)
    assert plugin.allocating.wait(10)
    plugin.offer({"a": "Healthy", "b": "Healthy"})
    kubelet.wait_for_list(RESOURCE, healthy=2)
    plugin.may_allocate.set()
    assert "'c'" in kubelet.wait_for_event("panicked")["details"]


def test_its_socket_stays_on_disk_when_it_stops(kubelet: KubeletProcess, plugin: StandIn) -> None:
    plugin.register()
    kubelet.wait_for_list(RESOURCE, healthy=3)
    kubelet.stop()
    assert plugin.stream_closed.wait(10)
    assert (kubelet.folder / "kubelet.sock").is_socket()
    with socket.socket(socket.AF_UNIX) as caller, pytest.raises(ConnectionRefusedError):
        caller.connect(str(kubelet.folder / "kubelet.sock"))


def test_a_new_one_wipes_sockets_and_nothing_else(kubelet: KubeletProcess, plugin: StandIn) -> None:
    checkpoint = kubelet.folder / "kubelet_internal_checkpoint"
    checkpoint.write_text("{}")
    (kubelet.folder / "notes").touch()
    before = (kubelet.folder / "kubelet.sock").stat().st_ctime_ns
    kubelet.restart()
    left = sorted(path.name for path in kubelet.folder.iterdir())
    assert left == ["kubelet.sock", "kubelet_internal_checkpoint", "notes"]
    assert (kubelet.folder / "kubelet.sock").stat().st_ctime_ns != before
    assert kubelet.state()["devices"] == {}


def test_an_older_one_wipes_everything_but_the_checkpoint(tmp_path: Path) -> None:
    for name in ("kubelet_internal_checkpoint", "notes"):
        (tmp_path / name).touch()
    with KubeletProcess(tmp_path, "--dials", "after"):
        left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["kubelet.sock", "kubelet_internal_checkpoint"]


def test_a_wait_in_vain_shows_the_last_events(kubelet: KubeletProcess) -> None:
    with pytest.raises(AssertionError, match=r"did not come in 0.01 s(.|\n)*listening"):
        kubelet.wait_for_list(RESOURCE, healthy={"a"}, timeout=0.01)
    kubelet.stop()
    with pytest.raises(AssertionError, match="before the kubelet's process ended"):
        kubelet.wait_for_event("registered")
