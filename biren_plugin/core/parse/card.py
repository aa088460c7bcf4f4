"""A card as sysfs and /dev show it, and the words for the state of its parts."""

import enum

import attrs

from biren_plugin.core.parse.vendor import NODE_FOLDER


class NodeState(enum.Enum):
    """What stands at a card's path in /dev."""

    CHARACTER_DEVICE = "a character device"
    MISSING = "missing"
    OTHER = "not a character device"
    NOIOMMU = "there without an IOMMU"
    """Of a VFIO group: its node is `/dev/vfio/noiommu-N`, and nothing isolates its functions."""
    UNKNOWN = "not to be looked at"
    """A permission or a limit kept it from being read: that says nothing about the card."""


class FunctionState(enum.Enum):
    """Whether a card's PCI function answers."""

    ANSWERS = "answers"
    SILENT = "answers 0xFF"
    """Its configuration space reads all ones, as when the device has left the bus."""
    UNKNOWN = "not to be read"


@attrs.frozen
class Link:
    """A card's PCIe link; None where sysfs does not tell."""

    speed: float | None = None
    """Now, in GT/s. An idle GPU lowers it by itself."""
    width: int | None = None
    """Now, in lanes."""
    max_speed: float | None = None
    """What the slot and the card could do, in GT/s."""
    max_width: int | None = None
    """What the slot and the card could do, in lanes."""


@attrs.frozen
class Card:
    """One schedulable unit as sysfs and /dev show it."""

    name: str
    """`card_3`: the driver's node id; may pass to another GPU after a new split. `/dev/vfio/3`."""
    number: int
    """The 3 in `card_3` and in `/dev/vfio/3`."""
    physical_id: int | None = None
    """Which physical GPU; None if sysfs does not tell."""
    memory: int | None = None
    """Bytes; None if sysfs does not tell."""
    pci_path: tuple[str, ...] = ()
    """From the root down: `("pci0000:3a", "0000:3a:00.0", "0000:3b:00.0")`; empty if unknown. For a VFIO
    group: the first silent function's path, else the first function's."""
    product: str | None = None
    """The PCI device id, `0x0106`; None if sysfs does not tell."""
    numa_node: int | None = None
    """None where the host has none (-1 in sysfs)."""
    split: int | None = None
    """Into how many its GPU is split, where the host says so; None: as many as the GPU has cards."""
    link: Link = Link()
    """Its width is read at each scan, the rest when the card is first read and once a minute."""
    node: NodeState = NodeState.CHARACTER_DEVICE
    """What stands at `path`."""
    function: FunctionState = FunctionState.UNKNOWN
    """Of the PCI function behind the card; of a VFIO group the worst."""
    aer_fatal: int | None = None
    """Uncorrectable fatal PCIe errors, counted since the function was enabled."""
    aer_nonfatal: int | None = None
    """Uncorrectable PCIe errors that the link survived."""
    functions: tuple[str, ...] = ()
    """PCI addresses of a VFIO group's functions that are passed through together."""
    unbound: tuple[str, ...] = ()
    """Functions of a VFIO group that cannot be passed through: `0000:3b:00.1 (biren)`."""
    misread: tuple[str, ...] = ()
    """Attributes whose text makes no sense: `physical_id reads 'N/A'`."""
    host_node: str | None = None
    """Where the node at `path` really is, if that is a link; None if it is not."""
    hung: bool = False
    """Whether reading it takes too long; then the rest is what was read before."""
    present: bool = True
    """Whether sysfs shows it; else the rest is what was read before it vanished."""

    @property
    def path(self) -> str:
        """The device node, the same on the host and in a container."""
        return self.name if self.is_group else f"{NODE_FOLDER}/{self.name}"

    @property
    def is_group(self) -> bool:
        """Whether it is a VFIO group."""
        return self.name.startswith("/")

    @property
    def pci_address(self) -> str | None:
        """`0000:3b:00.0`: the function behind the card."""
        return self.pci_path[-1] if self.pci_path else None
