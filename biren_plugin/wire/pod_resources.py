"""The kubelet's PodResourcesLister service in the core's types: the client's side.

Protocol buffers decode a message at once, into several times its size. So the long answer is taken apart
without decoding it whole: the encoding is the one of https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Final, Self

import attrs
import trio
from google.protobuf.message import DecodeError
from purerpc import Cardinality, Client, RpcFailedError, RPCSignature
from purerpc.grpclib.exceptions import ProtocolError

from biren_plugin.core.observed import ClaimUse, Holder, KubeletView
from biren_plugin.core.parse.claim_device import ClaimDevice
from biren_plugin.core.parse.vendor import DRA_DRIVER
from biren_plugin.errors import PodResourcesUnknown
from biren_plugin.records import mutable
from biren_plugin.wire._proto import podresources_pb2 as pb
from biren_plugin.wire._proto.podresources_grpc import PodResourcesListerStub
from biren_plugin.wire.unix_grpc import CallEnded, Channel, Limits, with_channel

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
"""Wire types. Groups, 3 and 4, do not occur in proto3."""
_FIXED: Final = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}
_VARINT_SIZE: Final = 10
"""Bytes of the longest integer."""


def encoded_elements(message: memoryview, field: int) -> Iterator[memoryview]:
    """Yield each element of the repeated `field`, which has messages, in their order; nothing is copied.

    Raises google.protobuf's `DecodeError` at the first byte that no message can have.
    """
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        wire_type = tag & 7
        if wire_type == _VARINT:
            _, at = _read_varint(message, at)
            continue
        if wire_type == _LENGTH:
            size, at = _read_varint(message, at)
        elif (size := _FIXED.get(wire_type, -1)) < 0:
            raise DecodeError(f"wire type {wire_type} at byte {at}")
        if at + size > len(message):
            raise DecodeError(f"a field of {size} bytes at byte {at} of {len(message)}")
        if wire_type == _LENGTH and tag >> 3 == field:
            yield message[at : at + size]
        at += size


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """The integer at this place, and the place behind it."""
    value = 0
    for number, byte in enumerate(message[at : at + _VARINT_SIZE]):
        value |= (byte & 0x7F) << (7 * number)
        if byte < 0x80:
            return value, at + number + 1
    raise DecodeError(f"an integer without an end at byte {at}")


_LIMITS = Limits(message_size=16 * 1024**2, connection_window=17 * 1024**2)
"""On a node with many pods, one message has every container with its CPUs and devices; the kubelet's own
client accepts 16 MiB. The window must hold the whole message, as it is returned only after the read."""
_PODS: Final = pb.ListPodResourcesResponse.POD_RESOURCES_FIELD_NUMBER
_AT_ONCE: Final = 64
"""Pods that are decoded before other tasks get their turn: one to two milliseconds."""


class _EncodedPods:
    """In place of a `ListPodResourcesResponse`, whose decoding takes several times its size in memory."""

    def __init__(self, message: bytes) -> None:
        self.message = memoryview(message)

    @classmethod
    def FromString(cls, data: bytes) -> Self:
        """As purerpc asks the type of an answer."""
        return cls(data)


_LIST: Final = RPCSignature(Cardinality.UNARY_UNARY, pb.ListPodResourcesRequest, _EncodedPods)


async def ask_kubelet(stream: trio.abc.Stream, vendor: str, deadline: float) -> KubeletView:
    """Return the kubelet's view of `vendor`'s resources: holders, listed pods, allocatable devices.

    `allocatable` is None from a kubelet that does not report it (before 1.23). One connection to the
    kubelet, which is closed afterwards. Raises `PodResourcesUnknown`: refused, broken off, or not answered in `deadline` seconds.
    """
    asked_at = trio.current_time()
    listed = _Listed(vendor)
    allocatable: pb.AllocatableResourcesResponse | None = None

    async def call(channel: Channel) -> None:
        nonlocal allocatable
        client = Client("v1.PodResourcesLister", channel)
        answer = await client.get_method_stub("List", _LIST)(pb.ListPodResourcesRequest())
        for number, encoded in enumerate(encoded_elements(answer.message, _PODS)):
            listed.add(pb.PodResources.FromString(bytes(encoded)))
            if number % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        stub = PodResourcesListerStub(channel)  # type: ignore[no-untyped-call]
        with suppress(RpcFailedError):
            allocatable = await stub.GetAllocatableResources(pb.AllocatableResourcesRequest())

    try:
        with trio.fail_after(deadline):
            await with_channel(stream, call, limits=_LIMITS)
    except RpcFailedError as error:
        raise PodResourcesUnknown(f"the kubelet refused: {error.status}") from error
    except DecodeError as error:
        raise PodResourcesUnknown(f"the kubelet broke off: unreadable answer: {error}") from error
    except (CallEnded, ProtocolError) as error:
        raise PodResourcesUnknown(f"the kubelet broke off: {error}") from error
    except trio.TooSlowError as error:
        raise PodResourcesUnknown(f"the kubelet did not answer in {deadline:g} s") from error
    return KubeletView(
        asked_at,
        listed.holders,
        _allocatable(allocatable, vendor),
        frozenset(listed.pods),
        listed.claims,
        frozenset(listed.unprepared),
    )


@mutable
class _Listed:
    """What counts of the pods that were decoded so far."""

    vendor: str
    pods: set[tuple[str, str]] = attrs.Factory(set)
    holders: dict[tuple[str, str], Holder] = attrs.Factory(dict)
    claims: dict[str, ClaimUse] = attrs.Factory(dict)
    """The prepared claims by uid."""
    unprepared: set[tuple[str, str]] = attrs.Factory(set)
    """Claims without any device yet."""

    def add(self, pod: pb.PodResources) -> None:
        """One more pod."""
        self.pods.add((pod.namespace, pod.name))
        for container in pod.containers:
            holder = Holder(pod.namespace, pod.name, container.name)
            for devices in container.devices:
                if devices.resource_name.startswith(f"{self.vendor}/"):
                    for id_ in devices.device_ids:
                        self.holders[devices.resource_name, id_] = holder
            for claim in container.dynamic_resources:
                self._add_claim(claim, holder)

    def _add_claim(self, claim: pb.DynamicResource, holder: Holder) -> None:
        """A device's names are those of the claim's earlier devices too, so each is taken once."""
        ours = [each for each in claim.claim_resources if each.driver_name == DRA_DRIVER]
        names = (cdi.name for each in ours for cdi in each.cdi_devices)
        for device in filter(None, map(ClaimDevice.parse, names)):
            new = ClaimUse(claim.claim_namespace, claim.claim_name, (), holder)
            use = self.claims.get(device.uid, new)
            if device not in use.devices:
                use = attrs.evolve(use, devices=(*use.devices, device))
            self.claims[device.uid] = use
        if not claim.claim_resources:
            self.unprepared.add((claim.claim_namespace, claim.claim_name))


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
