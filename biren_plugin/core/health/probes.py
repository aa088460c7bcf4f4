"""Faults of one card: each probe checks one thing and yields symptoms, with advice.

1. Missing data is not a fault: an unreadable value yields no symptom.
2. A text holds no value that changes with each reading (a temperature, a counter); otherwise each
   reading would add a line to the log.

To add a probe:

1. Write its function here, or in `library_probes`, and its row of `PROBES`. Flags, status and verdicts follow.
2. If it compares readings, add a field to `evidence.History`. If it needs a value that is not read yet: from
   sysfs, the attribute in `parse/sysfs`, its field in `parse/card` and, for VFIO groups, `parse/vfio`; from
   the management library, a field of `CardReading` in `parse/brml` and the call in `host/brml_session`.
3. Add its row to `docs/health.md`, its case to `tests/core/health/test_probes.py`, and its name to the schema:
   `python -m tests.support.settings_schema > schema/settings.schema.json`. Tests hold the first and the last.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import attrs

from biren_plugin.core.health import library_probes
from biren_plugin.core.health.evidence import Evidence, Symptom, severe, warning
from biren_plugin.core.inventory.gpu_grouping import name_of_gpu
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.brml import CardReading
from biren_plugin.core.parse.card import Card, FunctionState, NodeState
from biren_plugin.core.parse.pci_addresses import address_of, noiommu_node

_UNLOADED: Final = f"the driver's module was unloaded; on the node: `{vendor.MODPROBE}`"
"""The common cause of everything that goes with an unloaded module: cards and nodes."""


def _any(_evidence: Evidence) -> bool:
    return True


@attrs.frozen(eq=False, repr=False)  # compared by identity, and quickly hashed
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


class Finding(NamedTuple):
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
        what = f"device node {card.path} is missing"
        if card.host_node == card.path:
            what = f"device node {card.path} is a link that leads back to itself"
        elif card.host_node is not None:
            what = f"device node {card.path} is a link to {card.host_node}, which is missing, or not mounted here"
        yield severe(f"{what}; see `{command}` on the node")
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
        return
    where = f"{vendor.CLASS_FOLDER}/{card.name}/device"
    if card.is_group and card.physical_id is not None:
        where = f"/sys/bus/pci/devices/{address_of(card.physical_id)}"
    if card.misread:
        yield warning(
            f"{'; '.join(card.misread)}, so an earlier value counts, if there was one; see {where}"
        )
    if card.numa_misread:
        yield warning(f"{card.numa_misread}, so the card has no NUMA node; see {where}")


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


def _lspci(card: Card, options: str) -> str:
    """Return the command that shows the card's PCI function; all Biren functions if its address is unknown."""
    which = f"-s {card.pci_address}" if card.pci_address else f"-d {vendor.PCI_VENDOR[2:]}:"
    return f"lspci {options} {which}"


def _in_sysfs(is_known: Callable[[Card], bool]) -> Callable[[Evidence], bool]:
    """Return whether sysfs was read: a hung card only has its earlier reading."""
    return lambda evidence: not evidence.card.hung and is_known(evidence.card)


def _in_library(is_known: Callable[[CardReading], bool]) -> Callable[[Evidence], bool]:
    """Return whether the library has answered for the card."""
    return lambda evidence: evidence.reading is not None and is_known(evidence.reading)


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
        library_probes.find_hang,
        _in_library(lambda _reading: True),
    ),
    Probe(
        "library-status",
        "the health status that the library reports",
        library_probes.find_status,
        _in_library(lambda reading: reading.status is not None),
    ),
    Probe(
        "library-ecc",
        "uncorrected ECC errors do not rise",
        library_probes.find_ecc,
        _in_library(lambda reading: reading.ecc_uncorrected is not None),
    ),
    Probe(
        "library-temperature",
        "its temperature is below its thresholds",
        library_probes.find_temperature,
        _in_library(lambda reading: reading.temperature is not None),
    ),
    Probe(
        "library-split",
        "library and sysfs agree on the split",
        library_probes.find_split,
        _in_library(lambda reading: reading.svi_current is not None),
    ),
    Probe(
        "library-links",
        "its fast links to other GPUs stay up (a warning)",
        library_probes.find_lost_links,
    ),
    Probe(
        "library-presence", "the library knows the card (a warning)", library_probes.find_unknown
    ),
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
