"""The kubelet's PodResourcesLister in the model's words: the asking side."""

import trio
from purerpc import RpcFailedError
from purerpc.grpclib.exceptions import ProtocolError

from biren_plugin.core.observed import Holder
from biren_plugin.errors import PodResourcesUnknown
from biren_plugin.wire._proto import podresources_pb2 as pb
from biren_plugin.wire._proto.podresources_grpc import PodResourcesListerStub
from biren_plugin.wire.unix_grpc import CallEnded, Channel, Limits, with_channel

_LIMITS = Limits(message_size=16 * 1024**2, connection_window=17 * 1024**2)
"""A node of many pods: every container with its CPUs and devices is in one message, 16 MiB being what
the kubelet's own client takes. The window must hold it whole: it is given back when it was read."""


async def list_holders(
    stream: trio.abc.Stream, vendor: str, deadline: float
) -> dict[tuple[str, str], Holder]:
    """Which container holds each device of `vendor`'s resources, by resource and id.

    One call over a connection to the kubelet, which is closed afterwards. Raises
    `PodResourcesUnknown`: refused, broken off, or not answered in `deadline` seconds.
    """

    async def call(channel: Channel) -> pb.ListPodResourcesResponse:
        stub = PodResourcesListerStub(channel)  # type: ignore[no-untyped-call]
        answer: pb.ListPodResourcesResponse = await stub.List(pb.ListPodResourcesRequest())
        return answer

    try:
        with trio.fail_after(deadline):
            answer = await with_channel(stream, call, limits=_LIMITS)
    except RpcFailedError as error:
        raise PodResourcesUnknown(f"the kubelet refused: {error.status}") from error
    except (CallEnded, ProtocolError) as error:
        raise PodResourcesUnknown(f"the kubelet broke off: {error}") from error
    except trio.TooSlowError as error:
        raise PodResourcesUnknown(f"the kubelet did not answer in {deadline:g} s") from error
    return {
        (devices.resource_name, id_): Holder(pod.namespace, pod.name, container.name)
        for pod in answer.pod_resources
        for container in pod.containers
        for devices in container.devices
        if devices.resource_name.startswith(f"{vendor}/")
        for id_ in devices.device_ids
    }
