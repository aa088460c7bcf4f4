"""Faults of one card: each probe checks one thing and yields symptoms, with advice.

1. A new probe is one function and one row of `PROBES`.
2. Missing data is not a fault: an unreadable value yields no symptom.
3. A text holds no value that changes with each reading (a temperature, a counter); otherwise each
   reading would add a line to the log.
"""

from collections.abc import Callable, Iterator
from typing import Final

import attrs

from biren_plugin.core.health.evidence import Evidence
from biren_plugin.core.inventory.gpu_grouping import name_of_gpu
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.brml import CardReading, LibraryStatus
from biren_plugin.core.parse.card import Card, FunctionState, NodeState
from biren_plugin.core.parse.vfio import noiommu_node


@attrs.frozen
class Symptom:
    """A fault that a probe found."""

    text: str
    """A sentence, with advice."""
    severe: bool
    """Whether the symptom puts the card out of service; otherwise it is a warning."""


def severe(text: str) -> Symptom:
    """Return a symptom that puts the card out of service."""
    return Symptom(text, severe=True)


def warning(text: str) -> Symptom:
    """Return a symptom with which the card stays in service."""
    return Symptom(text, severe=False)


_UNLOADED: Final = f"the driver's module was unloaded; on the node: `{vendor.MODPROBE}`"
"""The common cause of everything that goes with an unloaded module: cards and nodes."""


_RESET: Final = f"see `dmesg`, and reset the GPU once no pod uses it: `{vendor.TOOL_RESET}`"


def _any(_evidence: Evidence) -> bool:
    return True


@attrs.frozen(eq=False)  # compared by identity, and quickly hashed
class Probe:
    """One check of a card."""

    name: str
    help: str
    find: Callable[[Evidence], Iterator[Symptom]]
    can_tell: Callable[[Evidence], bool] = _any
    """Whether no symptom means that the card is healthy, rather than that nothing could be read."""
    always: bool = False
    """Whether the probe counts in every mode and cannot be disabled: a card that fails it cannot be allocated."""
    indirect: bool = True
    """Whether the probe can be wrong about every card at once, and is then the suspect itself."""


@attrs.frozen
class Finding:
    """A symptom of one card, with the probe that found it."""

    probe: Probe
    text: str
    severe: bool = True
    """As in `Symptom`: whether it puts the card out of service."""


def _bus(evidence: Evidence) -> Iterator[Symptom]:
    card = evidence.card
    if card.present:
        return
    if evidence.module_gone:
        yield severe(_UNLOADED)
    elif card.is_group:
        yield severe(
            f"its {name_of_gpu(card)} is gone from sysfs, or no longer split by SR-IOV; "
            f"see `{vendor.LSPCI_DRIVERS}` and the kernel's log"
        )
    else:
        yield severe(
            f"fell off the bus: {name_of_gpu(card)} is gone from sysfs; see `{vendor.LSPCI}` and the "
            "kernel's log, and reboot the node if it does not return"
        )


def _device_node(evidence: Evidence) -> Iterator[Symptom]:
    card = evidence.card
    if card.present and card.node is NodeState.MISSING and evidence.module_gone:
        yield severe(_UNLOADED)
    elif card.present and card.node is NodeState.MISSING:
        command = _lspci(card, "-nnk") if card.is_group else vendor.KERNEL_LOG
        yield severe(f"device node {card.path} is missing; see `{command}` on the node")
    if card.present and card.node is NodeState.NOIOMMU:
        yield severe(
            f"its node is {noiommu_node(card.number)}: VFIO runs without an IOMMU, so nothing isolates "
            "the card; switch the IOMMU on in the firmware, and reboot with intel_iommu=on or "
            "amd_iommu=on"
        )
    if card.node is NodeState.OTHER:
        driver = "vfio-pci" if card.is_group else "the driver"
        yield severe(f"{card.path} is not a character device; remove it and reload {driver}")


def _module(evidence: Evidence) -> Iterator[Symptom]:
    if evidence.module_gone:
        yield severe(_UNLOADED)


def _sysfs(evidence: Evidence) -> Iterator[Symptom]:
    card = evidence.card
    if card.hung:
        yield severe(
            f"reading its attributes hangs; see `dmesg`: the driver of {card.name} may hang"
        )
    elif card.misread:
        yield warning(
            f"{'; '.join(card.misread)}, so the earlier value still counts; "
            f"see {vendor.CLASS_FOLDER}/{card.name}/device"
        )


def _binding(evidence: Evidence) -> Iterator[Symptom]:
    for function in evidence.card.unbound:
        address = function.split(" ")[0]
        yield severe(
            f"function {function} of its IOMMU group is not bound to vfio-pci; "
            f"see `lspci -nnk -s {address}`, and bind it"
        )


def _config(evidence: Evidence) -> Iterator[Symptom]:
    card = evidence.card
    if card.present and card.function is FunctionState.SILENT:
        function = " ".join(filter(None, ("its PCI function", card.pci_address)))
        yield severe(
            f"{function} answers 0xFF, as one that has left the bus; "
            "see `dmesg`, and reboot the node"
        )


def _aer_fatal(evidence: Evidence) -> Iterator[Symptom]:
    before = evidence.history.aer_fatal.risen_above(evidence.card.aer_fatal, evidence.now)
    if before is not None:
        yield severe(
            f"fatal PCIe errors have risen above {before}; see `dmesg | grep -i aer`, "
            "and reseat the card if they go on"
        )


def _aer_nonfatal(evidence: Evidence) -> Iterator[Symptom]:
    before = evidence.history.aer_nonfatal.risen_above(evidence.card.aer_nonfatal, evidence.now)
    if before is not None:
        yield warning(f"non-fatal PCIe errors have risen above {before}; see `dmesg | grep -i aer`")


def _link_width(evidence: Evidence) -> Iterator[Symptom]:
    width = evidence.card.link.width
    if width is None:
        return
    evidence.history.widest = max(evidence.history.widest, width)
    if width < evidence.history.widest:
        yield warning(
            f"its PCIe link has {width} lanes and had {evidence.history.widest}; "
            f"see `{_lspci(evidence.card, '-vv')}`, and reseat the card"
        )


def _library_hang(evidence: Evidence) -> Iterator[Symptom]:
    if evidence.library_hung:
        yield severe(f"the management library did not answer for 5 s; {_RESET}")
    elif evidence.reading is not None and evidence.reading.timed_out:
        yield severe(f"the management library timed out over it; {_RESET}")


def _library_status(evidence: Evidence) -> Iterator[Symptom]:
    status = evidence.reading.status if evidence.reading is not None else None
    if status is not None and status > LibraryStatus.OK:
        counts = severe if status >= evidence.unhealthy_on else warning
        yield counts(
            f"the management library reports health status {status.name.lower()}; "
            f"see `{vendor.TOOL_HEALTH}` for {evidence.card.name}"
        )


def _library_ecc(evidence: Evidence) -> Iterator[Symptom]:
    errors = evidence.reading.ecc_uncorrected if evidence.reading is not None else None
    before = evidence.history.ecc.risen_above(errors, evidence.now)
    if before is not None:
        yield severe(
            f"uncorrected ECC errors have risen above {before}: its memory loses data; "
            "replace the card if they go on"
        )


def _library_temperature(evidence: Evidence) -> Iterator[Symptom]:
    reading = evidence.reading
    if reading is None or reading.temperature is None:
        return
    for limit, name, counts in (
        (reading.shutdown_temperature, "shutdown", severe),
        (reading.slowdown_temperature, "slowdown", warning),
    ):
        if limit and reading.temperature >= limit:
            yield counts(
                f"its temperature has reached the {name} threshold of {limit} °C; "
                "check the node's cooling"
            )
            return


def _library_split(evidence: Evidence) -> Iterator[Symptom]:
    mode = evidence.reading.svi_current if evidence.reading is not None else None
    if mode is None:
        return
    if vendor.RESOURCE_OF_SPLIT.get(mode) != evidence.device.resource:
        yield severe(
            f"the management library reports that its GPU is split into {mode}, "
            f"which does not make a {evidence.device.resource}; see `{vendor.TOOL_LIST}`"
        )


def _library_presence(evidence: Evidence) -> Iterator[Symptom]:
    if evidence.card.present and not evidence.library_knows:
        yield warning(
            f"sysfs shows it, but the management library does not know it; see `{vendor.TOOL_LIST}`"
        )


def _lspci(card: Card, options: str) -> str:
    """Return the command that shows the card's PCI function; all Biren functions if its address is unknown."""
    which = f"-s {card.pci_address}" if card.pci_address else f"-d {vendor.PCI_VENDOR[2:]}:"
    return f"lspci {options} {which}"


def _in_sysfs(told: Callable[[Card], bool]) -> Callable[[Evidence], bool]:
    """Return whether sysfs was read: a hung card only has its earlier reading."""
    return lambda evidence: not evidence.card.hung and told(evidence.card)


def _in_library(told: Callable[[CardReading], bool]) -> Callable[[Evidence], bool]:
    """Return whether the library has answered for the card."""
    return lambda evidence: evidence.reading is not None and told(evidence.reading)


PROBES: Final = (
    Probe("bus", "the card is in sysfs", _bus, always=True, indirect=False),
    Probe(
        "device-node",
        "its node in /dev is a character device",
        _device_node,
        always=True,
        indirect=False,
    ),
    Probe("driver-module", "the driver's module stays loaded", _module, indirect=False),
    Probe("sysfs", "its attributes can be read (a warning if one reads as garbage)", _sysfs),
    Probe(
        "vfio-binding",
        "every function of a VFIO group is bound to vfio-pci",
        _binding,
        indirect=False,
    ),
    Probe(
        "pci-config",
        "its PCI function answers",
        _config,
        _in_sysfs(lambda card: card.function is not FunctionState.UNKNOWN),
    ),
    Probe(
        "aer-fatal",
        "fatal PCIe errors do not rise",
        _aer_fatal,
        _in_sysfs(lambda card: card.aer_fatal is not None),
    ),
    Probe("aer-nonfatal", "other PCIe errors do not rise (a warning)", _aer_nonfatal),
    Probe("link-width", "its PCIe link keeps its lanes (a warning)", _link_width),
    Probe(
        "library-hang",
        "the management library answers",
        _library_hang,
        _in_library(lambda _reading: True),
    ),
    Probe(
        "library-status",
        "the health status that the library reports",
        _library_status,
        _in_library(lambda reading: reading.status is not None),
    ),
    Probe(
        "library-ecc",
        "uncorrected ECC errors do not rise",
        _library_ecc,
        _in_library(lambda reading: reading.ecc_uncorrected is not None),
    ),
    Probe(
        "library-temperature",
        "its temperature is below its thresholds",
        _library_temperature,
        _in_library(lambda reading: reading.temperature is not None),
    ),
    Probe(
        "library-split",
        "library and sysfs agree on the split",
        _library_split,
        _in_library(lambda reading: reading.svi_current is not None),
    ),
    Probe("library-presence", "the library knows the card (a warning)", _library_presence),
)

OPTIONAL: Final = tuple(probe.name for probe in PROBES if not probe.always)
"""Names of the probes that can be disabled."""


def find(evidence: Evidence, disabled: frozenset[str]) -> list[Finding]:
    """Return everything that the probes find in the evidence of one card."""
    return [
        Finding(probe, symptom.text, symptom.severe)
        for probe in PROBES
        if probe.name not in disabled
        for symptom in probe.find(evidence)
    ]
