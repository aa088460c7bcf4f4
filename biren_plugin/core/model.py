"""The vocabulary: one frozen class for each thing that the daemon works with.

A *card* is the unit that a container can get: the driver's `card_3`, a whole GPU or one SVI instance;
on a kata node a VFIO group. A *device* is a card as it is reported to the kubelet, under a *resource*.
A *GPU* is the physical one, behind one card, or as many as it is split into.
"""

import attrs

from biren_plugin.core.parse.card import Card
from biren_plugin.core.parse.splits import SPLIT_OF_RESOURCE
from biren_plugin.core.placement.topology import NO_TOPOLOGY, Topology
from biren_plugin.records import frozen

Identity = tuple[int | None, str, int]
"""The unit of hardware behind a device: its GPU, its resource, its place among the GPU's cards."""


@frozen
class Mount:
    """A file or directory of the host, read-only in the container."""

    host_path: str
    container_path: str


@frozen
class HostFacts:
    """What a node has besides cards, for its containers."""

    control_node: bool = False
    """`/dev/biren-m`; older drivers have none."""
    dri_node: str | None = None
    """The render node that belongs to vgem, `/dev/dri/renderD128`; None unless asked for."""
    links: tuple[tuple[str, str], ...] = ()
    """The control and render nodes that are links: the path, and the real node's path."""
    mounts: tuple[Mount, ...] = ()
    """The driver's library and tool, symlinks resolved; empty unless asked for."""
    absent: tuple[str, ...] = ()
    """Missing things that containers should get, each in a few words."""
    dangling: tuple[tuple[str, str], ...] = ()
    """Absent paths that are links: the path, and where its link leads."""
    unreadable: tuple[tuple[str, str], ...] = ()
    """Absent paths that this process may not follow: the path, and the system's reason."""

    def why_absent(self, what: str) -> str:
        """Return why something `absent` is missing, as the end of a sentence."""
        target = dict(self.dangling).get(what)
        if (why := dict(self.unreadable).get(what)) is not None:
            return f"it cannot be read ({why})"
        if target is None:
            return "it is not on the node"
        if target == what:
            return "its link leads back to itself"
        return f"its link leads to {target}, which is missing, or not mounted here"


@frozen
class Snapshot:
    """One scan of the whole host."""

    cards: tuple[Card, ...] = ()
    """By number."""
    host: HostFacts = HostFacts()
    driver_loaded: bool = True
    """Whether `/sys/class/biren` exists; for VFIO groups, `/sys/bus/pci/devices`."""
    module_loaded: bool | None = None
    """Whether `/sys/module/biren` exists; None if unknown."""
    driver_version: str | None = None
    """As in `/sys/module/biren/version`: `1.12.0`."""
    left_out: tuple[str, ...] = ()
    """Sentences about PCI functions and class entries that no card is made from, with the reason."""
    shows_groups: bool = False
    """Whether its cards are VFIO groups."""


@frozen
class Device:
    """A card as it is reported to the kubelet."""

    card: Card
    resource: str
    """`birentech.com/gpu`, ..."""
    reasons: tuple[str, ...] = ()
    """Why the device is Unhealthy, each reason with advice; no reason: Healthy."""
    warnings: tuple[str, ...] = ()
    """Faults that do not make the device Unhealthy, each with advice."""
    instance: int = 0
    """Its place among the cards of its GPU."""
    recovering: bool = False
    """Whether its faults are over, and only the steady time keeps it out of service."""
    faults: tuple[str, ...] = ()
    """The probes that make it Unhealthy now; empty if no probe did."""
    warned: tuple[str, ...] = ()
    """The probes behind `warnings`."""

    @property
    def id(self) -> str:
        """Return the device id, which the kubelet keeps in its checkpoint."""
        return self.card.name

    @property
    def identity(self) -> Identity:
        """Return the unit of hardware, which stays the same when its card is renamed."""
        return self.card.physical_id, self.resource, self.instance

    @property
    def healthy(self) -> bool:
        """Return whether the kubelet may allocate the device."""
        return not self.reasons

    @property
    def pool_name(self) -> str | None:
        """Return the device's name in the node's pool and in claims; None without a PCI address.

        `gpu-0000-3b-00-0`, `svi-0000-3b-00-0-2-1`, `vfio-0000-3b-00-1`: never `card_N`, which may shift.
        """
        card = self.card
        address = card.functions[0] if card.functions else card.pci_address
        if address is None:
            return None
        label = address.replace(":", "-").replace(".", "-").lower()
        if card.is_group:
            return f"vfio-{label}"
        split = SPLIT_OF_RESOURCE.get(self.resource, 1)
        return f"gpu-{label}" if split == 1 else f"svi-{label}-{split}-{self.instance}"

    def because(self, *reasons: str) -> "Device":
        """Return the device with further reasons to be Unhealthy."""
        return attrs.evolve(self, reasons=self.reasons + reasons) if reasons else self


@frozen
class DeviceList:
    """All devices of one resource: the content of one message on the kubelet's stream."""

    resource: str
    devices: tuple[Device, ...] = ()
    """By card number."""
    host: HostFacts = HostFacts()
    pulse: int = 0
    """The number of heartbeats; a new one causes an unchanged list to be sent again."""

    def without_numa_nodes(self) -> "DeviceList":
        """The same list, for a kubelet that should not choose by NUMA node."""
        devices = tuple(
            attrs.evolve(each, card=attrs.evolve(each.card, numa_node=None))
            for each in self.devices
        )
        return attrs.evolve(self, devices=devices)

    def find(self, device_id: str) -> Device | None:
        """Return the device with that id, None if it is not listed."""
        return next((device for device in self.devices if device.id == device_id), None)


@frozen
class Excluded:
    """A device that the operator leaves out: it is in no list."""

    device: Device
    word: str
    """Of `--exclude`, as given."""


@frozen
class Inventory:
    """The devices of the node: the lists, before or after their cards were judged."""

    lists: tuple[DeviceList, ...] = ()
    """One for each resource that the node has, or has just lost (then empty)."""
    unsettled: tuple[str, ...] = ()
    """Sentences about cards that are not offered, or that contradict each other, with the reason."""
    found: int = 0
    """The number of cards or VFIO groups that the host shows, offered or not."""
    excluded: tuple[Excluded, ...] = ()
    """By card number."""
    unmatched: tuple[str, ...] = ()
    """Sentences about words of `--exclude` that no card matches."""
    suspects: tuple[str, ...] = ()
    """Sentences about suspect probes, which condemned all cards at once."""
    host: HostFacts = HostFacts()
    driver_loaded: bool = True
    shows_groups: bool = False
    """Whether its cards are VFIO groups."""
    topology: Topology = NO_TOPOLOGY
    """How close these devices are to each other."""

    def list_of(self, resource: str) -> DeviceList | None:
        """Return the list of one resource, None if the node does not have it."""
        return next((found for found in self.lists if found.resource == resource), None)

    def find(self, device_id: str) -> Device | None:
        """Return the device with that id under any resource, preferring a healthy one."""
        found = [device for each in self.lists if (device := each.find(device_id)) is not None]
        return next((device for device in found if device.healthy), found[0] if found else None)
