"""What the management library reports of each card, as Prometheus metrics: the rules of `metrics` hold."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from biren_plugin.core.inventory.held_cards import holder_of
from biren_plugin.core.model import Device, Inventory
from biren_plugin.core.observed import Observed
from biren_plugin.core.parse.brml import CardReading, Throttle

_CARD: Final = ("card", "pod", "namespace", "container")
_READINGS: Final[tuple[tuple[str, str, Callable[[CardReading], float | None]], ...]] = (
    ("br_gpu_temperature_celsius", "Temperature of the GPU's die.", lambda it: it.temperature),
    ("br_gpu_power_watts", "Power that the card draws.", lambda it: _part(it.power, 1000)),
    (
        "br_gpu_utilization_ratio",
        "Part of the last sample period in which the GPU was busy, 0 to 1.",
        lambda it: _part(it.gpu_utilization, 100),
    ),
    ("br_gpu_memory_used_bytes", "Memory of the card in use.", lambda it: it.memory_used),
    ("br_gpu_memory_total_bytes", "Memory of the card.", lambda it: it.memory_total),
)


def reading_metrics(inventory: Inventory, observed: Observed) -> Iterator[Metric]:
    """Yield the library's readings; those of a hanging card are old, and left out."""
    library = observed.library
    if library is None:
        return
    cards: list[tuple[list[str], CardReading]] = []
    for device in _present(inventory):
        reading = library.readings.get(device.card.number)
        if reading is not None and device.card.number not in library.hung:
            holder = holder_of(device, observed)
            held = (holder.pod, holder.namespace, holder.container) if holder else ("",) * 3
            cards.append(([device.id, *held], reading))
    for name, help_, value_of in _READINGS:
        family = GaugeMetricFamily(name, help_, labels=_CARD)
        for labels, reading in cards:
            if (value := value_of(reading)) is not None:
                family.add_metric(labels, value)
        yield family
    errors = CounterMetricFamily(
        "br_gpu_ecc_errors",
        "Memory errors since the driver was loaded, corrected and uncorrected.",
        labels=[*_CARD, "kind"],
    )
    for labels, reading in cards:
        for kind, count in (
            ("corrected", reading.ecc_corrected),
            ("uncorrected", reading.ecc_uncorrected),
        ):
            if count is not None:
                errors.add_metric([*labels, kind], count)
    yield errors
    yield from _states(cards)


def _states(cards: Sequence[tuple[list[str], CardReading]]) -> Iterator[Metric]:
    """Yield why clocks are lowered, and how many links to other GPUs are up, of cards with their labels."""
    throttled = GaugeMetricFamily(
        "br_gpu_throttled",
        "1: the hardware lowers the card's clocks for this reason.",
        labels=[*_CARD, "reason"],
    )
    links = GaugeMetricFamily(
        "br_gpu_links", "Ports for links to other GPUs, by state.", labels=[*_CARD, "state"]
    )
    for labels, reading in cards:
        if reading.throttle is not None:
            for reason in Throttle:
                throttled.add_metric([*labels, reason.value], reason in reading.throttle)
        if reading.links is not None and reading.links_up is not None:
            links.add_metric([*labels, "up"], reading.links_up)
            links.add_metric([*labels, "down"], reading.links - reading.links_up)
    yield from (throttled, links)


def _present(inventory: Inventory) -> Iterator[Device]:
    """Yield each present card once: the id of an old split may still be listed elsewhere."""
    seen = set()
    for each in inventory.lists:
        for device in each.devices:
            if device.card.present and device.id not in seen:
                seen.add(device.id)
                yield device


def _part(value: int | None, whole: int) -> float | None:
    return value / whole if value is not None else None
