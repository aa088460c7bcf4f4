"""Faults of one card that the management library reports, each found by one function.

The rules of `probes` hold here too. Where the library reports nothing, nothing is found.
"""

from collections.abc import Iterator
from typing import Final

from biren_plugin.core.health.evidence import Evidence, Symptom, severe, warning
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.brml import LibraryStatus
from biren_plugin.core.parse.splits import RESOURCE_OF_SPLIT

_RESET: Final = f"see `dmesg`, and reset the GPU once no pod uses it: `{vendor.TOOL_RESET}`"


def find_hang(evidence: Evidence) -> Iterator[Symptom]:
    """The library does not answer for the card, or gave up waiting for it."""
    if evidence.library_hung:
        yield severe(f"the management library did not answer for 5 s; {_RESET}")
    elif evidence.reading is not None and evidence.reading.timed_out:
        yield severe(f"the management library timed out over it; {_RESET}")


def find_status(evidence: Evidence) -> Iterator[Symptom]:
    """The library's own verdict."""
    status = evidence.reading.status if evidence.reading is not None else None
    if status is not None and status > LibraryStatus.OK:
        counts = severe if status >= evidence.unhealthy_on else warning
        yield counts(
            f"the management library reports health status {status.name.lower()}; "
            f"see `{vendor.TOOL_HEALTH}` for {evidence.card.name}"
        )


def find_ecc(evidence: Evidence) -> Iterator[Symptom]:
    """Uncorrected ECC errors that rise."""
    errors = evidence.reading.ecc_uncorrected if evidence.reading is not None else None
    before = evidence.history.ecc.risen_above(errors, evidence.now)
    if before is not None:
        yield severe(
            f"uncorrected ECC errors have risen above {before}: its memory loses data; "
            "replace the card if they go on"
        )


def find_temperature(evidence: Evidence) -> Iterator[Symptom]:
    """A temperature at its shutdown threshold, or a warning at its slowdown threshold."""
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


def find_split(evidence: Evidence) -> Iterator[Symptom]:
    """A split other than the one in sysfs."""
    mode = evidence.reading.svi_current if evidence.reading is not None else None
    if mode is None:
        return
    if RESOURCE_OF_SPLIT.get(mode) != evidence.device.resource:
        yield severe(
            f"the management library reports that its GPU is split into {mode}, "
            f"which does not make a {evidence.device.resource}; see `{vendor.TOOL_LIST}`"
        )


def find_unknown(evidence: Evidence) -> Iterator[Symptom]:
    """A card that the library does not know."""
    if evidence.card.present and not evidence.library_knows:
        yield warning(
            f"sysfs shows it, but the management library does not know it; see `{vendor.TOOL_LIST}`"
        )


def find_lost_links(evidence: Evidence) -> Iterator[Symptom]:
    """Training that spans GPUs runs at a fraction of its speed. A port that was never up is not connected."""
    up = evidence.reading.links_up if evidence.reading is not None else None
    if up is None:
        return
    evidence.history.most_links = max(evidence.history.most_links, up)
    if up < evidence.history.most_links:
        yield warning(
            f"{up} of its links to other GPUs are up, and {evidence.history.most_links} were; "
            f"see `{vendor.TOOL_TOPOLOGY}`, and reset or reseat the GPU"
        )
