"""A card as sysfs and /dev show it, and the states of its parts."""

import enum

from biren_plugin.core.parse.vendor import NODE_FOLDER
from biren_plugin.records import frozen


class NodeState(enum.Enum):
    """The state of a card's path in /dev."""

    CHARACTER_DEVICE = "a character device"
    MISSING = "missing"
    OTHER = "not a character device"
    NOIOMMU = "there without an IOMMU"
    """For a VFIO group: its node is `/dev/vfio/noiommu-N`, and nothing isolates its functions."""
    UNKNOWN = "not to be looked at"
    """A permission or a limit kept the node from being read: not a fault of the card."""


class FunctionState(enum.Enum):
    """Whether a card's PCI function answers."""

    ANSWERS = "answers"
    SILENT = "answers 0xFF"
    """Its configuration space reads all ones, as when the device has left the bus."""
    UNKNOWN = "not to be read"


@frozen
class Link:
    """A card's PCIe link; None for values that sysfs does not show."""

    speed: float | None = None
    """The current speed in GT/s. An idle GPU lowers it by itself."""
    width: int | None = None
    """The current width in lanes."""
    max_speed: float | None = None
    """The greatest speed of slot and card, in GT/s."""
    max_width: int | None = None
    """The greatest width of slot and card, in lanes."""


@frozen
class Card:
    """One schedulable unit as sysfs and /dev show it."""

    name: str
    """`card_3`, by the driver's node id, may pass to another GPU after a re-split; or `/dev/vfio/3`."""
    number: int
    """The 3 in `card_3` and in `/dev/vfio/3`."""
    physical_id: int | None = None
    """The number of the physical GPU; None if unknown."""
    memory: int | None = None
    """Bytes; None if unknown."""
    pci_path: tuple[str, ...] = ()
    """From the root down: `("pci0000:3a", "0000:3a:00.0", "0000:3b:00.0")`; empty if unknown. For a VFIO
    group: the first silent function's path, else the first function's."""
    product: str | None = None
    """The PCI device id, `0x0106`; None if unknown."""
    product_name: str | None = None
    """As the management library reports it, `Biren166M`; None if it does not."""
    numa_node: int | None = None
    """None if the host has no NUMA nodes (-1 in sysfs), or the text is garbage."""
    split: int | None = None
    """The number of parts of its GPU, if the host shows it; None: the number of the GPU's cards."""
    link: Link = Link()
    """The width is read every few seconds, the rest when the card is first read and once a minute."""
    node: NodeState = NodeState.CHARACTER_DEVICE
    """The state of `path`."""
    function: FunctionState = FunctionState.UNKNOWN
    """The state of the PCI function behind the card; for a VFIO group, the worst one."""
    aer_fatal: int | None = None
    """Uncorrectable fatal PCIe errors, counted since the function was enabled."""
    aer_nonfatal: int | None = None
    """Uncorrectable PCIe errors that the link survived."""
    functions: tuple[str, ...] = ()
    """PCI addresses of a VFIO group's functions that are passed through together."""
    unbound: tuple[str, ...] = ()
    """Functions of a VFIO group that cannot be passed through: `0000:3b:00.1 (biren)`."""
    misread: tuple[str, ...] = ()
    """Attributes with garbage, of which the earlier value still counts: `physical_id reads 'N/A'`."""
    numa_misread: str = ""
    """`numa_node reads '?'` if it is garbage, or no number of a NUMA node; else empty."""
    host_node: str | None = None
    """The real path of the node if `path` is a link; None if it is not."""
    hung: bool = False
    """Whether reading the card takes too long; the other fields are then from an earlier scan."""
    present: bool = True
    """Whether sysfs shows the card; otherwise the other fields are from before it vanished."""

    @property
    def path(self) -> str:
        """Return the path of the device node, the same on the host and in a container."""
        return self.name if self.is_group else f"{NODE_FOLDER}/{self.name}"

    @property
    def called(self) -> str | None:
        """The product as people know it: its name, else its PCI device id; None if both are unknown."""
        return self.product_name or self.product

    @property
    def is_group(self) -> bool:
        """Return whether the card is a VFIO group."""
        return self.name.startswith("/")

    @property
    def pci_address(self) -> str | None:
        """Return the address of the function behind the card: `0000:3b:00.0`."""
        return self.pci_path[-1] if self.pci_path else None
