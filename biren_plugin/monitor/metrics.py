"""The daemon's state as Prometheus metrics, built on request.

1. Nothing is kept between two requests: a card, pod or resource that has gone has no series.
2. Labels are resources, cards, loops, error classes and the pods that hold a card, so the node bounds
   their number. A reason is a label of `br_gpu_device_info` only.
3. Unknown values (no library, no pod-resources socket) have no series, or empty labels.

Names and units: https://prometheus.io/docs/practices/naming/.
"""

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from biren_plugin import __version__
from biren_plugin.core.dra.driver_state import DriverState
from biren_plugin.core.hami.hami_state import HamiState
from biren_plugin.core.model import Inventory
from biren_plugin.core.observed import NO_CLAIMS, Observed
from biren_plugin.daemon_state import (
    CALL_BOUNDS,
    Counters,
    DaemonState,
    Latency,
)
from biren_plugin.errors import printable
from biren_plugin.monitor.reading_metrics import reading_metrics

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4


class Metrics(Collector):
    """`state` at the time of the request, and the process's own memory, CPU time and descriptors."""

    def __init__(self, state: DaemonState) -> None:
        self._state = state
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Return all metrics in the text format 0.0.4."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        inventory = self._state.sent_inventory()
        observed = self._state.observed.latest or Observed()
        build = InfoMetricFamily("br_gpu_build", "The version of the plugin.")
        build.add_metric([], {"version": __version__})
        yield build
        yield from self._of_devices(inventory, observed)
        yield from reading_metrics(inventory, observed)
        yield from self._of_kubelet(inventory, observed)
        yield from self._of_daemon()
        if self._state.hami is not None:
            yield from _of_hami(self._state.hami)

    def _of_devices(self, inventory: Inventory, observed: Observed) -> Iterator[Metric]:
        counts = GaugeMetricFamily(
            "br_gpu_devices",
            "Devices listed to the kubelet, by health.",
            labels=["resource", "health"],
        )
        healthy = GaugeMetricFamily(
            "br_gpu_device_healthy", "1: the card can be allocated.", labels=["resource", "card"]
        )
        info = InfoMetricFamily(
            "br_gpu_device",
            "The hardware of a card, and why it is unhealthy.",
            labels=["resource", "card"],
        )
        readings = observed.library.readings if observed.library is not None else {}
        for each in inventory.lists:
            well = sum(device.healthy for device in each.devices)
            counts.add_metric([each.resource, "healthy"], well)
            counts.add_metric([each.resource, "unhealthy"], len(each.devices) - well)
            for device in each.devices:
                card = device.card
                labels = [each.resource, device.id]
                reading = readings.get(card.number)
                healthy.add_metric(labels, device.healthy)
                facts = {
                    "gpu": _text(card.physical_id),
                    "pci_address": card.pci_address or "",
                    "numa_node": _text(card.numa_node),
                    "uuid": (reading.uuid if reading is not None else None) or "",
                    "product": card.called or "",
                    "serial": (reading.serial if reading is not None else None) or "",
                    "reason": printable("; ".join(device.reasons)),
                }
                info.add_metric(labels, facts)
        yield from (counts, healthy, info)

    def _of_kubelet(self, inventory: Inventory, observed: Observed) -> Iterator[Metric]:
        counters = self._state.counters
        registered = GaugeMetricFamily(
            "br_gpu_registered",
            "1: the kubelet accepted the resource's registration and watches.",
            labels=["resource"],
        )
        sent = GaugeMetricFamily(
            "br_gpu_last_list_timestamp_seconds",
            "When the last list of the resource was written to the kubelet's stream.",
            labels=["resource"],
        )
        rival = GaugeMetricFamily(
            "br_gpu_rival",
            "1: another plugin has taken the resource, or may have.",
            labels=["resource"],
        )
        for each in inventory.lists:
            rival.add_metric([each.resource], each.resource in self._state.rivals)
            registered.add_metric([each.resource], self._state.is_registered(each.resource))
            if each.resource in counters.lists_sent:
                sent.add_metric([each.resource], counters.lists_sent[each.resource])
        yield from (registered, rival, sent)
        yield _counter(
            "br_gpu_registrations",
            "Registrations that the kubelet accepted.",
            ["resource"],
            (([resource], count) for resource, count in counters.registrations.items()),
        )
        yield _counter(
            "br_gpu_allocations",
            "Allocations, by outcome.",
            ["resource", "outcome"],
            (([*key], count) for key, count in counters.allocations.items()),
        )
        yield _histogram(
            "br_gpu_allocation_seconds", "Time that Allocate took.", counters.allocating
        )
        if self._state.driver is not None:
            yield from _of_driver(self._state.driver, observed, counters)
        yield _histogram(
            "br_gpu_preferred_allocation_seconds",
            "Time that GetPreferredAllocation took.",
            counters.preferring,
        )

    def _of_daemon(self) -> Iterator[Metric]:
        counters = self._state.counters
        yield _counter(
            "br_gpu_restarts",
            "Restarts of failed subtrees, by class of the error.",
            ["subtree", "cause"],
            (([*key], count) for key, count in counters.restarts.items()),
        )
        probes = GaugeMetricFamily(
            "br_gpu_probe_seconds", "Time that the last scan took.", labels=["probe"]
        )
        for loop, turn in counters.turns.items():
            probes.add_metric([loop], turn.seconds)
        yield probes
        if self._state.cdi_file is not None:
            on_disk = self._state.cdi_file.latest
            stale = on_disk is None or bool(on_disk.findings)
            yield GaugeMetricFamily(
                "br_gpu_cdi_spec_stale", "1: the CDI file lacks what it should hold.", value=stale
            )


def _of_driver(driver: DriverState, observed: Observed, counters: Counters) -> Iterator[Metric]:
    devices = GaugeMetricFamily(
        "br_gpu_dra_devices",
        "Devices of the node's ResourceSlices: wanted, and stored by the API server.",
        labels=["state"],
    )
    devices.add_metric(["wanted"], driver.wanted)
    devices.add_metric(["stored"], driver.stored)
    yield devices
    yield GaugeMetricFamily(
        "br_gpu_dra_published",
        "1: the API server holds the node's ResourceSlices as they should be.",
        value=bool(not driver.trouble and driver.stored == driver.wanted),
    )
    forbidden = GaugeMetricFamily(
        "br_gpu_dra_forbidden", "1: the API server refuses this right.", labels=["right"]
    )
    for right in driver.forbidden:
        forbidden.add_metric([right], 1)
    yield forbidden
    claims = observed.claims or NO_CLAIMS
    yield GaugeMetricFamily(
        "br_gpu_dra_prepared_claims",
        "Claims that are prepared on the node.",
        value=len(claims.files.keys() | claims.believed.keys()),
    )
    yield _counter(
        "br_gpu_dra_claims",
        "Claims that the kubelet had prepared, by outcome.",
        ["outcome"],
        (([outcome], count) for outcome, count in counters.claims.items()),
    )
    yield _histogram(
        "br_gpu_dra_prepare_seconds", "Time that one claim took to prepare.", counters.preparing
    )


def _of_hami(hami: HamiState) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "br_gpu_hami_registered",
        "1: the API server took the last report of the node's cards for HAMi.",
        value=hami.registered,
    )
    if hami.reported is not None:
        yield GaugeMetricFamily(
            "br_gpu_hami_last_report_timestamp_seconds",
            "When the node's cards and the handshake were written last.",
            value=hami.reported,
        )
    locked = GaugeMetricFamily(
        "br_gpu_hami_locked",
        "1: HAMi has locked the node for this pod.",
        labels=["namespace", "pod"],
    )
    if hami.lock:
        namespace, _, pod = hami.lock.partition("/")
        locked.add_metric([namespace, pod], 1)
    yield locked
    yield _counter(
        "br_gpu_hami_containers",
        "Containers that asked for whole cards, by how they matched HAMi's record.",
        ["outcome"],
        (([outcome], count) for outcome, count in hami.containers.items()),
    )


def _counter(
    name: str, help_: str, labels: list[str], samples: Iterable[tuple[list[str], int]]
) -> Metric:
    family = CounterMetricFamily(name, help_, labels=labels)
    for values, count in samples:
        family.add_metric(values, count)
    return family


def _histogram(name: str, help_: str, latency: Latency) -> Metric:
    bounds = [*(f"{bound:g}" for bound in CALL_BOUNDS), "+Inf"]
    cumulative = accumulate(latency.counts)
    buckets = [(bound, float(count)) for bound, count in zip(bounds, cumulative, strict=True)]
    return HistogramMetricFamily(name, help_, buckets=buckets, sum_value=latency.total)


def _text(value: object) -> str:
    return "" if value is None else str(value)
