"""From offered devices to the lists on one kubelet stream: each change once, the whole list each time."""

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
    """The lists for one stream, for as long as somebody reads it.

    `streams` has a token for it while it is open, `on_sent` gets each list
    once it was written, and `shown` makes of each list what the kubelet is sent. Each list makes the kubelet write its checkpoint: one that
    would read the same is not sent, unless a heartbeat is due.
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
