"""Which container holds what, as a kubelet reports it; elements are those that protobuf itself decodes."""

from collections.abc import Callable
from functools import partial

import pytest
import trio
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from purerpc import UnimplementedError
from trio.testing import MockClock, memory_stream_pair

from biren_plugin.core.observed import ClaimUse, Holder, KubeletView
from biren_plugin.core.parse.claim_device import ClaimDevice
from biren_plugin.errors import PodResourcesUnknown
from biren_plugin.wire._proto import podresources_pb2 as pb
from biren_plugin.wire._proto.podresources_grpc import PodResourcesListerServicer
from biren_plugin.wire.pod_resources import ElementCutter, ask_kubelet
from biren_plugin.wire.unix_grpc import DEFAULT_LIMITS, Server
from tests.support.cards import GPU


class Lister(PodResourcesListerServicer):
    """Answers after `seconds`."""

    def __init__(self, answer: Callable[[], pb.ListPodResourcesResponse], seconds: float) -> None:
        self._answer = answer
        self._seconds = seconds
        self.allocatable: pb.AllocatableResourcesResponse | None = None

    async def List(self, _request: pb.ListPodResourcesRequest) -> pb.ListPodResourcesResponse:  # noqa: N802 - gRPC's spelling
        await trio.sleep(self._seconds)
        return self._answer()

    async def GetAllocatableResources(  # noqa: N802 - gRPC's spelling
        self, _request: pb.AllocatableResourcesRequest
    ) -> pb.AllocatableResourcesResponse:
        if self.allocatable is None:
            raise UnimplementedError("API GetAllocatableResources disabled")
        return self.allocatable


def training_pod() -> pb.ListPodResourcesResponse:
    answer = pb.ListPodResourcesResponse()
    pod = answer.pod_resources.add(name="train", namespace="default")
    for container, resource, ids in (
        ("main", GPU, ["card_0", "card_1"]),
        ("side", GPU, ["card_2"]),
        ("side", "nvidia.com/gpu", ["0"]),
        ("idle", "birentech.com.evil/gpu", ["card_3"]),
    ):
        pod.containers.add(name=container).devices.add(resource_name=resource, device_ids=ids)
    return answer


async def asked(lister: Lister) -> KubeletView:
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        server = Server([lister], DEFAULT_LIMITS, lambda error: None)
        nursery.start_soon(partial(server.handle, far))
        return await ask_kubelet(near, "birentech.com", 5.0)


async def test_the_holder_of_each_device_is_returned_with_its_container() -> None:
    view = await asked(Lister(training_pod, 0.0))
    assert view.pods == {("default", "train")}
    assert view.holders == {
        (GPU, "card_0"): Holder("default", "train", "main"),
        (GPU, "card_1"): Holder("default", "train", "main"),
        (GPU, "card_2"): Holder("default", "train", "side"),
    }


def claiming_pod() -> pb.ListPodResourcesResponse:
    answer = pb.ListPodResourcesResponse()
    pod = answer.pod_resources.add(name="train", namespace="team")
    container = pod.containers.add(name="main")
    claim = container.dynamic_resources.add(claim_name="cards", claim_namespace="team")
    names = [f"birentech.com/claim=uid-1:cards:gpu-{number}" for number in range(2)]
    for number in range(2):  # the second device has the first one's name too
        device = claim.claim_resources.add(driver_name="gpu.birentech.com", pool_name="node-7")
        device.device_name = f"gpu-{number}"
        for name in names[: number + 1]:
            device.cdi_devices.add(name=name)
    other = container.dynamic_resources.add(claim_name="net", claim_namespace="team")
    nic = other.claim_resources.add(driver_name="nic.example.com")
    nic.cdi_devices.add(name="example.com/claim=uid-2:nic:eth0")
    container.dynamic_resources.add(claim_name="failed", claim_namespace="team")
    return answer


async def test_each_device_of_a_claim_is_returned_once_and_other_drivers_not_at_all() -> None:
    view = await asked(Lister(claiming_pod, 0.0))
    devices = tuple(ClaimDevice("uid-1", "cards", f"gpu-{number}") for number in range(2))
    holder = Holder("team", "train", "main")
    assert view.claims == {"uid-1": ClaimUse("team", "cards", devices, holder)}
    assert view.unprepared == {("team", "failed")}


async def test_a_kubelet_that_does_not_answer_is_not_waited_for(autojump_clock: MockClock) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await asked(Lister(training_pod, 60.0))
    assert caught.group_contains(PodResourcesUnknown, match="did not answer in 5 s")


async def test_allocatable_devices_are_returned_by_resource_for_this_vendor_only() -> None:
    lister = Lister(training_pod, 0.0)
    lister.allocatable = pb.AllocatableResourcesResponse()
    for resource, ids in (
        (GPU, ["card_0"]),
        (GPU, ["card_1", "card_2"]),
        ("nvidia.com/gpu", ["0"]),
    ):
        lister.allocatable.devices.add(resource_name=resource, device_ids=ids)
    allocatable = (await asked(lister)).allocatable
    assert allocatable == {GPU: frozenset({"card_0", "card_1", "card_2"})}


async def test_an_old_kubelet_without_allocatable_devices_still_reports_holders() -> None:
    view = await asked(Lister(training_pod, 0.0))
    holders, allocatable = view.holders, view.allocatable
    assert holders
    assert allocatable is None


FIELD = pb.ListPodResourcesResponse.POD_RESOURCES_FIELD_NUMBER
NAMES = st.text(max_size=300)
UNKNOWN_FIELDS = st.sampled_from(
    (
        b"",
        b"\x10\x80\x80\x01",  # field 2, an integer
        b"\x19" + b"8" * 8,  # field 3, eight bytes
        b"\x22\x03abc",  # field 4, a text
        b"\x2d" + b"4" * 4,  # field 5, four bytes
        b"\x08\x01",  # field 1, but an integer
    )
)


@given(st.lists(st.tuples(NAMES, UNKNOWN_FIELDS), max_size=6), st.integers(1, 400))
def test_each_element_is_found_between_whatever_fields_and_in_whatever_parts(
    parts: list[tuple[str, bytes]], size: int
) -> None:
    message = b""
    for name, unknown in parts:
        one = pb.ListPodResourcesResponse()
        one.pod_resources.add(name=name)
        message += unknown + one.SerializeToString()
    decoded = pb.ListPodResourcesResponse.FromString(message).pod_resources
    assert [pb.PodResources.FromString(each) for each in cut(message, size)] == list(decoded)


def cut(message: bytes, size: int) -> list[bytes]:
    """Return the elements of a message that comes in parts of this size."""
    cutter = ElementCutter(FIELD)
    places = range(0, len(message), size)
    elements = [each for at in places for each in cutter.cut(message[at : at + size])]
    cutter.end()
    return elements


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize(
    "message",
    [
        b"\x0a",  # no length
        b"\x0a\x05abc",  # shorter than its length
        b"\x0b",  # a group
        b"\xff" * 11,  # an integer without an end
        b"\x19123",  # fewer than eight bytes
    ],
)
def test_bytes_that_are_not_a_message_are_an_error(message: bytes, size: int) -> None:
    with pytest.raises(DecodeError):
        cut(message, size)
