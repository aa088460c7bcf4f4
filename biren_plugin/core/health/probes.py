"""What is wrong with one card: each probe looks at one thing and gives findings, with what to do.

Missing data is no fault: a value that could not be read gives no finding. Texts hold no value that
changes from look to look (a temperature, a counter), or each look would be a line in the log.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import attrs

from biren_plugin.core.inventory.splits import name_of_gpu
from biren_plugin.core.model import Device
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.brml import CardReading, LibraryStatus
from biren_plugin.core.parse.card import Card, FunctionState, NodeState
from biren_plugin.core.parse.vendor import RESOURCE_OF_SPLIT

RISE_HOLD: Final = 10.0
"""Seconds for which a counter that rose is a finding: all cards' counters are read by then."""


@attrs.frozen
class Finding:
    """Something wrong with a card."""

    probe: str
    text: str
    severe: bool = True
    """Whether it puts the card out of service; else it is a warning."""


class Rising:
    """One counter of one card: whether it has risen of late."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._quiet_at = 0
        self._rose: float | None = None

    def risen_above(self, value: int | None, now: float) -> int | None:
        """What it was before it last rose, if that is less than `RISE_HOLD` ago.

        The first value, and one that a reset lowered, is where it starts from.
        """
        if value is not None:
            if self._last is not None and value > self._last:
                if not self._holds(now):
                    self._quiet_at = self._last
                self._rose = now
            self._last = value
        return self._quiet_at if self._holds(now) else None

    def _holds(self, now: float) -> bool:
        return self._rose is not None and now - self._rose < RISE_HOLD


@attrs.define
class History:
    """What has to be remembered of a card to see that something has changed."""

    aer_fatal: Rising = attrs.Factory(Rising)
    aer_nonfatal: Rising = attrs.Factory(Rising)
    ecc: Rising = attrs.Factory(Rising)
    widest: int = 0
    """The most lanes that its link has had."""


@attrs.frozen
class Look:
    """One card as everything shows it at one moment."""

    device: Device
    history: History
    now: float
    module_gone: bool = False
    """Whether the driver's module was loaded and is not any more."""
    library_hung: bool = False
    library_knows: bool = True
    """Whether the library knows the card; True also where there is no library."""
    reading: CardReading | None = None
    unhealthy_on: LibraryStatus = LibraryStatus.CRITICAL

    @property
    def card(self) -> Card:
        """The card."""
        return self.device.card


@attrs.frozen
class Probe:
    """One thing that is looked at."""

    name: str
    help: str
    find: Callable[[Look], Iterator[tuple[str, bool]]]
    """Sentences, and whether each puts the card out of service."""
    indirect: bool = True
    """Whether it can be wrong about every card at once, and is then itself the suspect."""


def _bus(look: Look) -> Iterator[tuple[str, bool]]:
    card = look.card
    if card.present:
        return
    if card.is_group:
        yield (
            f"its {name_of_gpu(card)} is gone from sysfs, or no longer split by SR-IOV; "
            f"see `{vendor.LSPCI_DRIVERS}` and the kernel's log",
            True,
        )
    else:
        yield (
            f"fell off the bus: {name_of_gpu(card)} is gone from sysfs; see `{vendor.LSPCI}` and the "
            "kernel's log, and reboot the node if it does not return",
            True,
        )


def _device_node(look: Look) -> Iterator[tuple[str, bool]]:
    card = look.card
    if card.present and card.node is NodeState.MISSING:
        command = f"lspci -nnks {card.pci_address}" if card.is_group else vendor.KERNEL_LOG
        yield f"device node {card.path} is missing; see `{command}` on the node", True
    if card.node is NodeState.OTHER:
        driver = "vfio-pci" if card.is_group else "the driver"
        yield f"{card.path} is no character device; remove it and reload {driver}", True


def _module(look: Look) -> Iterator[tuple[str, bool]]:
    if look.module_gone:
        yield f"the driver's module is not loaded any more; on the node: `{vendor.MODPROBE}`", True


def _sysfs(look: Look) -> Iterator[tuple[str, bool]]:
    if look.card.hung:
        yield (
            f"reading its attributes hangs; see `dmesg`: the driver of {look.card.name} may hang",
            True,
        )


def _binding(look: Look) -> Iterator[tuple[str, bool]]:
    for function in look.card.unbound:
        address = function.split(" ")[0]
        yield (
            f"function {function} of its IOMMU group is not bound to vfio-pci; "
            f"see `lspci -nnk -s {address}`, and bind it",
            True,
        )


def _config(look: Look) -> Iterator[tuple[str, bool]]:
    if look.card.present and look.card.function is FunctionState.SILENT:
        yield (
            f"its PCI function {look.card.pci_address} answers 0xFF, as one that has left the bus; "
            "see `dmesg`, and reboot the node",
            True,
        )


def _aer_fatal(look: Look) -> Iterator[tuple[str, bool]]:
    before = look.history.aer_fatal.risen_above(look.card.aer_fatal, look.now)
    if before is not None:
        yield (
            f"fatal PCIe errors have risen above {before}; see `dmesg | grep -i aer`, "
            "and reseat the card if they go on",
            True,
        )


def _aer_nonfatal(look: Look) -> Iterator[tuple[str, bool]]:
    before = look.history.aer_nonfatal.risen_above(look.card.aer_nonfatal, look.now)
    if before is not None:
        yield (
            f"non-fatal PCIe errors have risen above {before}; see `dmesg | grep -i aer`",
            False,
        )


def _link_width(look: Look) -> Iterator[tuple[str, bool]]:
    width = look.card.link.width
    if width is None:
        return
    look.history.widest = max(look.history.widest, width)
    if width < look.history.widest:
        yield (
            f"its PCIe link has {width} lanes and had {look.history.widest}; "
            f"see `lspci -vv -s {look.card.pci_address}`, and reseat the card",
            False,
        )


def _library_hang(look: Look) -> Iterator[tuple[str, bool]]:
    if look.library_hung:
        yield "the management library did not answer for 5 s; see `dmesg`, reset the GPU", True
    elif look.reading is not None and look.reading.timed_out:
        yield "the management library timed out over it; see `dmesg`, reset the GPU", True


def _library_status(look: Look) -> Iterator[tuple[str, bool]]:
    status = look.reading.status if look.reading is not None else None
    if status is not None and status > LibraryStatus.OK:
        yield (
            f"the management library reports health status {status.name.lower()}; "
            f"see `brsmi gpu` for {look.card.name}",
            status >= look.unhealthy_on,
        )


def _library_ecc(look: Look) -> Iterator[tuple[str, bool]]:
    errors = look.reading.ecc_uncorrected if look.reading is not None else None
    before = look.history.ecc.risen_above(errors, look.now)
    if before is not None:
        yield (
            f"uncorrected ECC errors have risen above {before}: its memory loses data; "
            "replace the card if they go on",
            True,
        )


def _library_temperature(look: Look) -> Iterator[tuple[str, bool]]:
    reading = look.reading
    if reading is None or reading.temperature is None:
        return
    for limit, name, severe in (
        (reading.shutdown_temperature, "shutdown", True),
        (reading.slowdown_temperature, "slowdown", False),
    ):
        if limit and reading.temperature >= limit:
            yield (
                f"its temperature has reached the {name} threshold of {limit} °C; "
                "see to the node's cooling",
                severe,
            )
            return


def _library_split(look: Look) -> Iterator[tuple[str, bool]]:
    mode = look.reading.svi_current if look.reading is not None else None
    if mode is None:
        return
    if RESOURCE_OF_SPLIT.get(mode) != look.device.resource:
        yield (
            f"the management library says that its GPU is split into {mode}, "
            f"which is no {look.device.resource}; see `brsmi gpu`",
            True,
        )


def _library_presence(look: Look) -> Iterator[tuple[str, bool]]:
    if look.card.present and not look.library_knows:
        yield (
            "sysfs shows it, and the management library does not know it; see `brsmi gpu`",
            False,
        )


PROBES: Final = (
    Probe("bus", "the card is in sysfs", _bus, indirect=False),
    Probe("device-node", "its node in /dev is a character device", _device_node, indirect=False),
    Probe("driver-module", "the driver's module stays loaded", _module, indirect=False),
    Probe("sysfs", "its attributes can be read", _sysfs),
    Probe("vfio-binding", "all of a VFIO group is bound to vfio-pci", _binding, indirect=False),
    Probe("pci-config", "its PCI function answers", _config),
    Probe("aer-fatal", "fatal PCIe errors do not rise", _aer_fatal),
    Probe("aer-nonfatal", "other PCIe errors do not rise (a warning)", _aer_nonfatal),
    Probe("link-width", "its PCIe link keeps its lanes (a warning)", _link_width),
    Probe("library-hang", "the management library answers", _library_hang),
    Probe("library-status", "the health status that the library reports", _library_status),
    Probe("library-ecc", "uncorrected ECC errors do not rise", _library_ecc),
    Probe("library-temperature", "its temperature is below its thresholds", _library_temperature),
    Probe("library-split", "library and sysfs agree on the split", _library_split),
    Probe("library-presence", "the library knows the card (a warning)", _library_presence),
)

_NEEDS_OF_SYSFS: Final[Mapping[str, Callable[[Card], bool]]] = {
    "pci-config": lambda card: card.function is not FunctionState.UNKNOWN,
    "aer-fatal": lambda card: card.aer_fatal is not None,
}
_NEEDS_OF_LIBRARY: Final[Mapping[str, Callable[[CardReading], bool]]] = {
    "library-hang": lambda _reading: True,
    "library-status": lambda reading: reading.status is not None,
    "library-ecc": lambda reading: reading.ecc_uncorrected is not None,
    "library-temperature": lambda reading: reading.temperature is not None,
    "library-split": lambda reading: reading.svi_current is not None,
}
"""By probe, whether what was read is enough for it to call a card well."""

ALWAYS: Final = frozenset({"bus", "device-node"})
"""Without these there is no card to give away: they cannot be disabled, and count in every mode."""
OPTIONAL: Final = tuple(probe.name for probe in PROBES if probe.name not in ALWAYS)


def find(look: Look, disabled: frozenset[str]) -> list[Finding]:
    """Everything that the probes find at one look at one card."""
    return [
        Finding(probe.name, text, severe)
        for probe in PROBES
        if probe.name not in disabled
        for text, severe in probe.find(look)
    ]


def can_tell(probe: str, look: Look) -> bool:
    """Whether its finding nothing means that the card is well, and not that nothing was told of it."""
    if probe in _NEEDS_OF_SYSFS:  # one that hangs is as it was before
        return not look.card.hung and _NEEDS_OF_SYSFS[probe](look.card)
    if probe in _NEEDS_OF_LIBRARY:
        return look.reading is not None and _NEEDS_OF_LIBRARY[probe](look.reading)
    return True
