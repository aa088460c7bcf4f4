"""The vocabulary: one frozen word for each thing that the daemon deals with.

A *card* is what can be given to a container: the driver's `card_3`, a whole GPU or one SVI instance;
on a kata node a VFIO group. A *device* is a card as it is reported to the kubelet, under a *resource*.
A *GPU* is the physical one, behind 1, 2 or 4 cards.
"""

import attrs

from biren_plugin.core.parse.card import Card
from biren_plugin.core.placement.topology import NO_TOPOLOGY, Topology

Identity = tuple[int | None, str, int]
"""Which unit of hardware a device is: its GPU, its resource, its place among the GPU's cards."""


@attrs.frozen
class Mount:
    """A file or folder of the host, read-only in the container."""

    host_path: str
    container_path: str


@attrs.frozen
class HostFacts:
    """What a node has besides cards, as containers need it."""

    control_node: bool = False
    """`/dev/biren-m`; older drivers have none."""
    dri_node: str | None = None
    """The render node that belongs to vgem, `/dev/dri/renderD128`; None unless asked for."""
    links: tuple[tuple[str, str], ...] = ()
    """Of the two nodes above those that are links: the path, and where the node really is."""
    mounts: tuple[Mount, ...] = ()
    """The driver's library and tool, symlinks resolved; empty unless asked for."""
    absent: tuple[str, ...] = ()
    """What containers should get and is missing, each in a few words."""
    dangling: tuple[tuple[str, str], ...] = ()
    """Of what is absent: a path, and where its link leads."""

    def why_absent(self, what: str) -> str:
        """Why something `absent` is not there, as the end of a sentence."""
        target = dict(self.dangling).get(what)
        if target is None:
            return "it is not on the node"
        return f"its link leads to {target}, which is missing, or not mounted here"


@attrs.frozen
class Snapshot:
    """One scan of the whole host."""

    cards: tuple[Card, ...] = ()
    """By number."""
    host: HostFacts = HostFacts()
    driver_loaded: bool = True
    """Whether `/sys/class/biren` is there; for VFIO groups, `/sys/bus/pci/devices`."""
    module_loaded: bool | None = None
    """Whether `/sys/module/biren` is there; None where that cannot be told."""
    driver_version: str | None = None
    """As `/sys/module/biren/version` has it: `1.12.0`."""
    left_out: tuple[str, ...] = ()
    """Sentences about PCI functions that no card is made of, and why."""
    shows_groups: bool = False
    """Whether its cards are VFIO groups."""


@attrs.frozen
class Device:
    """A card as it is reported to the kubelet."""

    card: Card
    resource: str
    """`birentech.com/gpu`, ..."""
    reasons: tuple[str, ...] = ()
    """Why it is Unhealthy, each with what to do; Healthy if there is none."""
    warnings: tuple[str, ...] = ()
    """What is wrong with it without making it Unhealthy, each with what to do."""
    instance: int = 0
    """Its place among the cards of its GPU."""
    recovering: bool = False
    """Whether its faults are over, and it only has to stay healthy for a while to return to service."""
    faults: tuple[str, ...] = ()
    """The probes that make it Unhealthy now; empty where the reason is no probe's."""
    warned: tuple[str, ...] = ()
    """The probes behind `warnings`."""

    @property
    def id(self) -> str:
        """The kubelet's id, which the kubelet keeps in its checkpoint."""
        return self.card.name

    @property
    def identity(self) -> Identity:
        """The unit of hardware that it is, whatever its card is called after the next split."""
        return self.card.physical_id, self.resource, self.instance

    @property
    def healthy(self) -> bool:
        """Whether the kubelet may allocate it."""
        return not self.reasons

    def because(self, *reasons: str) -> "Device":
        """The same device with further reasons to be Unhealthy."""
        return attrs.evolve(self, reasons=self.reasons + reasons) if reasons else self


@attrs.frozen
class DeviceList:
    """All devices of one resource: what one message on the kubelet's stream says."""

    resource: str
    devices: tuple[Device, ...] = ()
    """By card number."""
    host: HostFacts = HostFacts()
    pulse: int = 0
    """Counts the heartbeats; a new one makes an unchanged list be sent again."""

    def find(self, device_id: str) -> Device | None:
        """The device with that id, if it is listed."""
        return next((device for device in self.devices if device.id == device_id), None)


@attrs.frozen
class Excluded:
    """A device that the operator leaves out: it is in no list."""

    device: Device
    word: str
    """Of `--exclude`, as given."""


@attrs.frozen
class Inventory:
    """What the node is believed to hold: the lists before any of their cards was judged."""

    lists: tuple[DeviceList, ...] = ()
    """One for each resource that the node has, or has just lost (then empty)."""
    unsettled: tuple[str, ...] = ()
    """Sentences about cards that nothing is announced from, or that contradict each other, and why."""
    found: int = 0
    """How many cards or VFIO groups the host shows, offered or not."""
    excluded: tuple[Excluded, ...] = ()
    """By card number."""
    unmatched: tuple[str, ...] = ()
    """Sentences about words of `--exclude` that no card matches."""
    suspects: tuple[str, ...] = ()
    """Sentences about probes that condemn every card at once, and are set aside."""
    host: HostFacts = HostFacts()
    driver_loaded: bool = True
    shows_groups: bool = False
    """Whether its cards are VFIO groups."""
    topology: Topology = NO_TOPOLOGY
    """How close all of these devices are to each other."""

    def list_of(self, resource: str) -> DeviceList | None:
        """The list of one resource, None if the node has no such."""
        return next((found for found in self.lists if found.resource == resource), None)

    def find(self, device_id: str) -> Device | None:
        """The device with that id under any resource, a healthy one first."""
        found = [device for each in self.lists if (device := each.find(device_id)) is not None]
        return next((device for device in found if device.healthy), found[0] if found else None)
