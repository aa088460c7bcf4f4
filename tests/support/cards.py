"""Cards, devices and snapshots in few words, for the tests of core/."""

from collections.abc import Iterable
from typing import Final

from biren_plugin.core.model import Device, DeviceList, Snapshot
from biren_plugin.core.parse.card import Card, NodeState

GPU: Final = "birentech.com/gpu"
HALF: Final = "birentech.com/1-2-gpu"
QUARTER: Final = "birentech.com/1-4-gpu"

GPU_MEMORY: Final = 64 * 1024**3


def card(
    number: int,
    gpu: int | None = None,
    *,
    parts: int = 1,
    address: str | None = None,
    node: NodeState = NodeState.CHARACTER_DEVICE,
) -> Card:
    """`card_<number>`, one of `parts` instances of a GPU."""
    return Card(
        name=f"card_{number}",
        number=number,
        physical_id=gpu,
        memory=GPU_MEMORY // parts,
        pci_path=(address,) if address is not None else (),
        node=node,
    )


def snapshot(*cards: Card) -> Snapshot:
    """A host with these cards."""
    return Snapshot(tuple(cards))


def gpu_cards(gpu: int, *numbers: int) -> list[Card]:
    """All cards of a GPU, split into as many parts as there are numbers."""
    return [card(number, gpu, parts=len(numbers)) for number in numbers]


def listed(resource: str, *devices: Device) -> DeviceList:
    """A resource's list."""
    return DeviceList(resource, tuple(devices))


def devices(resource: str, *numbers: int) -> list[Device]:
    """Healthy devices of a resource."""
    return [Device(card(number), resource) for number in numbers]


def ids(found: Iterable[Device]) -> list[str]:
    """The ids of devices, in order."""
    return [device.id for device in found]
