"""Which container holds what, as a kubelet tells it."""

from collections.abc import Callable
from functools import partial

import pytest
import trio
from purerpc import UnimplementedError
from trio.testing import MockClock, memory_stream_pair

from biren_plugin.core.observed import Holder, KubeletView
from biren_plugin.errors import PodResourcesUnknown
from biren_plugin.wire._proto import podresources_pb2 as pb
from biren_plugin.wire._proto.podresources_grpc import PodResourcesListerServicer
from biren_plugin.wire.pod_resources import ask_kubelet
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


async def test_holder_of_each_of_our_devices_is_told_down_to_its_container() -> None:
    view = await asked(Lister(training_pod, 0.0))
    assert view.pods == {("default", "train")}
    assert view.holders == {
        (GPU, "card_0"): Holder("default", "train", "main"),
        (GPU, "card_1"): Holder("default", "train", "main"),
        (GPU, "card_2"): Holder("default", "train", "side"),
    }


async def test_kubelet_that_does_not_answer_is_not_waited_for(autojump_clock: MockClock) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await asked(Lister(training_pod, 60.0))
    assert caught.group_contains(PodResourcesUnknown, match="did not answer in 5 s")


async def test_allocatable_devices_are_told_by_resource_and_only_ours() -> None:
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


async def test_kubelet_that_does_not_tell_what_is_allocatable_still_tells_who_holds_what() -> None:
    view = await asked(Lister(training_pod, 0.0))
    holders, allocatable = view.holders, view.allocatable
    assert holders
    assert allocatable is None
