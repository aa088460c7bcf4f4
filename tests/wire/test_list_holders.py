"""Which container holds what, as a kubelet tells it."""

from collections.abc import Callable
from functools import partial

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from biren_plugin.core.observed import Holder
from biren_plugin.errors import PodResourcesUnknown
from biren_plugin.wire._proto import podresources_pb2 as pb
from biren_plugin.wire._proto.podresources_grpc import PodResourcesListerServicer
from biren_plugin.wire.pod_resources import list_holders
from biren_plugin.wire.unix_grpc import DEFAULT_LIMITS, Server
from tests.support.cards import GPU


class Lister(PodResourcesListerServicer):
    """Answers after `seconds`."""

    def __init__(self, answer: Callable[[], pb.ListPodResourcesResponse], seconds: float) -> None:
        self._answer = answer
        self._seconds = seconds

    async def List(self, _request: pb.ListPodResourcesRequest) -> pb.ListPodResourcesResponse:  # noqa: N802 - gRPC's spelling
        await trio.sleep(self._seconds)
        return self._answer()


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


async def asked(lister: Lister) -> dict[tuple[str, str], Holder]:
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        server = Server([lister], DEFAULT_LIMITS, lambda error: None)
        nursery.start_soon(partial(server.handle, far))
        return await list_holders(near, "birentech.com", 5.0)


async def test_holder_of_each_of_our_devices_is_told_down_to_its_container() -> None:
    assert await asked(Lister(training_pod, 0.0)) == {
        (GPU, "card_0"): Holder("default", "train", "main"),
        (GPU, "card_1"): Holder("default", "train", "main"),
        (GPU, "card_2"): Holder("default", "train", "side"),
    }


async def test_kubelet_that_does_not_answer_is_not_waited_for(autojump_clock: MockClock) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await asked(Lister(training_pod, 60.0))
    assert caught.group_contains(PodResourcesUnknown, match="did not answer in 5 s")
