"""The kubelet's PodResourcesLister service in the core's types: the client's side.

Protocol buffers decode a message at once, into several times its size. So the long answer is taken apart as
it arrives, and decoded pod by pod: the encoding is the one of https://protobuf.dev/programming-guides/encoding/.
"""

import sys
from contextlib import suppress
from typing import Final

import attrs
import trio
from google.protobuf.message import DecodeError
from purerpc import RpcFailedError
from purerpc.grpclib.exceptions import ProtocolError

from biren_plugin.core.observed import ClaimUse, Holder, KubeletView
from biren_plugin.core.parse.claim_device import ClaimDevice
from biren_plugin.core.parse.vendor import DRA_DRIVER
from biren_plugin.errors import PodResourcesUnknown
from biren_plugin.records import mutable
from biren_plugin.wire._proto import podresources_pb2 as pb
from biren_plugin.wire._proto.podresources_grpc import PodResourcesListerStub
from biren_plugin.wire.unix_grpc import CallEnded, Channel, Limits, take_answer, with_channel

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
"""Wire types. Groups, 3 and 4, do not occur in proto3."""
_FIXED: Final = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}
_VARINT_SIZE: Final = 10
"""Bytes of the longest integer."""


class ElementCutter:
    """Cuts the elements of the repeated `field`, which has messages, out of a message that comes in parts."""

    def __init__(self, field: int) -> None:
        self._field = field
        self._rest = bytearray()

    def cut(self, part: bytes) -> list[bytes]:
        """Return the elements that `part` completes, in their order.

        Raises google.protobuf's `DecodeError` at the first byte that no message can have.
        """
        self._rest += part
        elements = []
        at = 0
        while (found := _field_at(self._rest, at)) is not None and found[2] <= len(self._rest):
            number, start, at = found
            if number == self._field:
                elements.append(bytes(self._rest[start:at]))
        del self._rest[:at]
        return elements

    def end(self) -> None:
        """Raise `DecodeError` unless the last part ended with a whole field."""
        if self._rest:
            raise DecodeError(
                f"the message ends {len(self._rest)} bytes after the start of a field"
            )


def _field_at(message: bytearray, at: int) -> tuple[int, int, int] | None:
    """Return the field at this place and where its bytes begin and end; None while its start is incomplete.

    The field's number is 0 if it is none with a length.
    """
    if (header := _varint_at(message, at)) is None:
        return None
    tag, at = header
    wire_type = tag & 7
    if wire_type in _FIXED:
        return 0, at, at + _FIXED[wire_type]
    if wire_type not in (_VARINT, _LENGTH):
        raise DecodeError(f"wire type {wire_type}")
    if (integer := _varint_at(message, at)) is None:
        return None
    if wire_type == _VARINT:
        return 0, at, integer[1]
    size, at = integer
    return tag >> 3, at, at + size


def _varint_at(message: bytearray, at: int) -> tuple[int, int] | None:
    """Return the integer at this place and the place behind it; None while its end is missing."""
    value = 0
    for number, byte in enumerate(message[at : at + _VARINT_SIZE]):
        value |= (byte & 0x7F) << (7 * number)
        if byte < 0x80:
            return value, at + number + 1
    if len(message) - at >= _VARINT_SIZE:
        raise DecodeError("an integer without an end")
    return None


_LIMITS = Limits(message_size=16 * 1024**2, connection_window=17 * 1024**2)
"""On a node with many pods, one message has every container with its CPUs and devices; the kubelet's own
client accepts 16 MiB. The window must hold a whole message that is not taken in parts."""
_PODS: Final = pb.ListPodResourcesResponse.POD_RESOURCES_FIELD_NUMBER


async def ask_kubelet(stream: trio.abc.Stream, vendor: str, deadline: float) -> KubeletView:
    """Return the kubelet's view of `vendor`'s resources: holders, listed pods, allocatable devices.

    `allocatable` is None from a kubelet that does not report it (before 1.23). One connection to the
    kubelet, which is closed afterwards. Raises `PodResourcesUnknown`: refused, broken off, or not answered in
    `deadline` seconds.
    """
    asked_at = trio.current_time()
    listed = _Listed(vendor)
    allocatable: pb.AllocatableResourcesResponse | None = None
    pods = ElementCutter(_PODS)

    def take_pods(part: bytes) -> None:
        for encoded in pods.cut(part):
            listed.add(pb.PodResources.FromString(encoded))

    async def call(channel: Channel) -> None:
        nonlocal allocatable
        stub = PodResourcesListerStub(channel)  # type: ignore[no-untyped-call]
        await take_answer(stub.List, pb.ListPodResourcesRequest(), take_pods)
        pods.end()
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
        self.pods.add((sys.intern(pod.namespace), pod.name))  # thousands of pods, few namespaces
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
