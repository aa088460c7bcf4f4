"""The kubelet's PodResourcesLister service in the core's types: the client's side."""

from contextlib import suppress

import attrs
import trio
from purerpc import RpcFailedError
from purerpc.grpclib.exceptions import ProtocolError

from biren_plugin.core.observed import ClaimUse, Holder, KubeletView
from biren_plugin.core.parse.claim_devices import ClaimDevice
from biren_plugin.core.parse.vendor import DRA_DRIVER
from biren_plugin.errors import PodResourcesUnknown
from biren_plugin.wire._proto import podresources_pb2 as pb
from biren_plugin.wire._proto.podresources_grpc import PodResourcesListerStub
from biren_plugin.wire.unix_grpc import CallEnded, Channel, Limits, with_channel

_LIMITS = Limits(message_size=16 * 1024**2, connection_window=17 * 1024**2)
"""On a node with many pods, one message has every container with its CPUs and devices; the kubelet's own
client accepts 16 MiB. The window must hold the whole message, as it is returned only after the read."""


async def ask_kubelet(stream: trio.abc.Stream, vendor: str, deadline: float) -> KubeletView:
    """Return the kubelet's view of `vendor`'s resources: holders, listed pods, allocatable devices.

    `allocatable` is None from a kubelet that does not report it (before 1.23). One connection to the
    kubelet, which is closed afterwards. Raises `PodResourcesUnknown`: refused, broken off, or not answered in `deadline` seconds.
    """
    asked_at = trio.current_time()
    holders = pb.ListPodResourcesResponse()
    allocatable: pb.AllocatableResourcesResponse | None = None

    async def call(channel: Channel) -> None:
        nonlocal holders, allocatable
        stub = PodResourcesListerStub(channel)  # type: ignore[no-untyped-call]
        holders = await stub.List(pb.ListPodResourcesRequest())
        with suppress(RpcFailedError):
            allocatable = await stub.GetAllocatableResources(pb.AllocatableResourcesRequest())

    try:
        with trio.fail_after(deadline):
            await with_channel(stream, call, limits=_LIMITS)
    except RpcFailedError as error:
        raise PodResourcesUnknown(f"the kubelet refused: {error.status}") from error
    except (CallEnded, ProtocolError) as error:
        raise PodResourcesUnknown(f"the kubelet broke off: {error}") from error
    except trio.TooSlowError as error:
        raise PodResourcesUnknown(f"the kubelet did not answer in {deadline:g} s") from error
    pods = frozenset((pod.namespace, pod.name) for pod in holders.pod_resources)
    found = _allocatable(allocatable, vendor)
    claims, unprepared = _claims(holders)
    return KubeletView(asked_at, _holders(holders, vendor), found, pods, claims, unprepared)


def _holders(answer: pb.ListPodResourcesResponse, vendor: str) -> dict[tuple[str, str], Holder]:
    return {
        (devices.resource_name, id_): Holder(pod.namespace, pod.name, container.name)
        for pod in answer.pod_resources
        for container in pod.containers
        for devices in container.devices
        if devices.resource_name.startswith(f"{vendor}/")
        for id_ in devices.device_ids
    }


def _claims(
    answer: pb.ListPodResourcesResponse,
) -> tuple[dict[str, ClaimUse], frozenset[tuple[str, str]]]:
    """The prepared claims by uid, and those without any device yet.

    A device's names are those of the claim's earlier devices too, so each is taken once.
    """
    claims: dict[str, ClaimUse] = {}
    unprepared = set()
    for pod in answer.pod_resources:
        for container in pod.containers:
            for claim in container.dynamic_resources:
                ours = [each for each in claim.claim_resources if each.driver_name == DRA_DRIVER]
                names = (cdi.name for each in ours for cdi in each.cdi_devices)
                for device in filter(None, map(ClaimDevice.parse, names)):
                    holder = Holder(pod.namespace, pod.name, container.name)
                    new = ClaimUse(claim.claim_namespace, claim.claim_name, (), holder)
                    use = claims.get(device.uid, new)
                    if device not in use.devices:
                        use = attrs.evolve(use, devices=(*use.devices, device))
                    claims[device.uid] = use
                if not claim.claim_resources:
                    unprepared.add((claim.claim_namespace, claim.claim_name))
    return claims, frozenset(unprepared)


def _allocatable(
    answer: pb.AllocatableResourcesResponse | None, vendor: str
) -> dict[str, frozenset[str]] | None:
    if answer is None:
        return None
    found: dict[str, frozenset[str]] = {}
    for devices in answer.devices:  # one message for each device, or for each NUMA node
        if devices.resource_name.startswith(f"{vendor}/"):
            before = found.get(devices.resource_name, frozenset())
            found[devices.resource_name] = before.union(devices.device_ids)
    return found
