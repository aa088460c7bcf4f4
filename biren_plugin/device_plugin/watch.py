"""Turns offered devices into the lists on one kubelet stream: each change once, always the whole list."""

from collections.abc import AsyncGenerator, Callable

from biren_plugin.board import Board
from biren_plugin.core.model import DeviceList
from biren_plugin.device_plugin.node import Streams


async def watch_devices(
    offered: Board[DeviceList],
    streams: Board[Streams],
    on_sent: Callable[[DeviceList], None] = lambda _devices: None,
    shown: Callable[[DeviceList], DeviceList] = lambda devices: devices,
) -> AsyncGenerator[DeviceList, None]:
    """Yield the lists for one stream, as long as it is read.

    `streams` has a token for the stream while it is open, `on_sent` gets each list once it was written, and
    `shown` turns each list into the one to send. The kubelet writes its checkpoint for each list, so an
    equal list is only sent for a heartbeat.
    """
    stream = object()
    streams.post((streams.latest or Streams()).with_new(stream))
    try:
        with offered.subscribe() as lists:
            last: object = None
            async for current in lists:
                seen = shown(current)
                if (wire := _as_sent(seen)) != last:
                    last = wire
                    yield seen
                    on_sent(seen)
    finally:
        streams.post((streams.latest or Streams()).without(stream))


def _as_sent(devices: DeviceList) -> object:
    return devices.pulse, [(each.id, each.healthy, each.card.numa_node) for each in devices.devices]
