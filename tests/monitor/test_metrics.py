"""Metrics for Prometheus: which series there are, which end, and promtool's opinion of them."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from biren_plugin.board import Board
from biren_plugin.core.cdi.findings import Finding, OnDisk
from biren_plugin.core.hami.hami_state import HamiState
from biren_plugin.core.model import Device
from biren_plugin.core.observed import Holder
from biren_plugin.core.parse.brml import CardReading, Throttle
from biren_plugin.core.rivals import Rival
from biren_plugin.daemon_state import CALL_BOUNDS, Counters, DaemonState, Latency
from biren_plugin.errors import StreamEnded
from biren_plugin.monitor.metrics import Metrics
from tests.support.cards import GPU, HALF, card, devices, listed
from tests.support.daemon_states import hold, new_state, observe
from tests.support.tools import need

Sample = tuple[str, frozenset[tuple[str, str]]]
SICK = Device(card(1, 7, address="0000:3b:00.0"), GPU, ("it is hot", "it hangs"))
TRAIN = Holder("default", "train", "main")


def samples(state: DaemonState) -> dict[Sample, float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(Metrics(state).text().decode())
        for sample in family.samples
    }


def value(state: DaemonState, name: str, /, **labels: str) -> float | None:
    return samples(state).get((name, frozenset(labels.items())))


def labels_of(state: DaemonState, name: str) -> list[dict[str, str]]:
    return [dict(labels) for found, labels in samples(state) if found == name]


async def test_the_rival_metric_is_one_only_for_the_taken_resource() -> None:
    state = new_state(listed(GPU, *devices(GPU, 0)), listed(HALF, *devices(HALF, 2, 3)))
    state.rivals[GPU] = Rival(("vendor.sock",), "its name is a Biren plugin's")
    assert value(state, "br_gpu_rival", resource=GPU) == 1
    assert value(state, "br_gpu_rival", resource=HALF) == 0


async def test_a_node_under_hami_has_its_report_its_lock_and_its_containers() -> None:
    state = new_state(listed(GPU, *devices(GPU, 0)))
    assert value(state, "br_gpu_hami_registered") is None
    state.hami = HamiState(registered=True, reported=1_700_000_000.0, lock="team/p1")
    state.hami.note("unmatched", "why")
    assert value(state, "br_gpu_hami_registered") == 1
    assert value(state, "br_gpu_hami_last_report_timestamp_seconds") == 1_700_000_000.0
    assert labels_of(state, "br_gpu_hami_locked") == [{"namespace": "team", "pod": "p1"}]
    assert value(state, "br_gpu_hami_containers_total", outcome="unmatched") == 1
    state.hami.lock = ""
    assert labels_of(state, "br_gpu_hami_locked") == []


async def test_devices_are_counted_by_resource_and_health_with_their_reason() -> None:
    state = new_state(listed(GPU, *devices(GPU, 0), SICK), listed(HALF, *devices(HALF, 2, 3)))
    assert value(state, "br_gpu_devices", resource=GPU, health="healthy") == 1
    assert value(state, "br_gpu_devices", resource=GPU, health="unhealthy") == 1
    assert value(state, "br_gpu_devices", resource=HALF, health="healthy") == 2
    assert value(state, "br_gpu_devices", resource=HALF, health="unhealthy") == 0
    assert value(state, "br_gpu_device_healthy", resource=GPU, card="card_1") == 0
    sick = next(each for each in labels_of(state, "br_gpu_device_info") if each["card"] == "card_1")
    assert sick == {
        "resource": GPU,
        "card": "card_1",
        "gpu": "7",
        "product": "",
        "serial": "",
        "pci_address": "0000:3b:00.0",
        "numa_node": "",
        "uuid": "",
        "reason": "it is hot; it hangs",
    }


async def test_a_device_missing_from_the_cdi_file_counts_as_unhealthy() -> None:
    [device] = devices(GPU, 0)
    state = new_state(listed(GPU, device))
    assert value(state, "br_gpu_cdi_spec_stale") is None, "there is no file"
    state.cdi_file = Board()
    state.cdi_file.post(OnDisk(1, None, (Finding("the disk is full"),)))
    state.offered[GPU].post(listed(GPU, device.because("the CDI file lacks it")))
    assert value(state, "br_gpu_cdi_spec_stale") == 1
    assert value(state, "br_gpu_device_healthy", resource=GPU, card="card_0") == 0
    state.cdi_file.post(OnDisk(2))
    assert value(state, "br_gpu_cdi_spec_stale") == 0


async def test_readings_are_labelled_with_the_pod_that_holds_the_card() -> None:
    state = new_state(listed(GPU, *devices(GPU, 0, 1)))
    hot = CardReading(
        0, temperature=71, power=250_500, gpu_utilization=93, memory_used=5, memory_total=9,
        ecc_corrected=3, ecc_uncorrected=0, links=8, links_up=5,
        throttle=frozenset({Throttle.THERMAL}),
    )  # fmt: skip
    observe(state, hot, CardReading(1, temperature=40), holders={(GPU, "card_0"): TRAIN})
    held = {"card": "card_0", "namespace": "default", "pod": "train", "container": "main"}
    free = {"card": "card_1", "namespace": "", "pod": "", "container": ""}
    assert value(state, "br_gpu_temperature_celsius", **held) == 71
    assert value(state, "br_gpu_power_watts", **held) == 250.5
    assert value(state, "br_gpu_utilization_ratio", **held) == 0.93
    assert value(state, "br_gpu_memory_used_bytes", **held) == 5
    assert value(state, "br_gpu_memory_total_bytes", **held) == 9
    assert value(state, "br_gpu_ecc_errors_total", kind="corrected", **held) == 3
    assert value(state, "br_gpu_ecc_errors_total", kind="uncorrected", **held) == 0
    assert value(state, "br_gpu_throttled", reason="thermal", **held) == 1
    assert value(state, "br_gpu_throttled", reason="power_brake", **held) == 0
    assert value(state, "br_gpu_links", state="up", **held) == 5
    assert value(state, "br_gpu_links", state="down", **held) == 3
    assert value(state, "br_gpu_temperature_celsius", **free) == 40
    assert value(state, "br_gpu_power_watts", **free) is None, "unknown is not zero"


async def test_old_readings_of_a_hung_card_are_left_out() -> None:
    state = new_state(listed(GPU, *devices(GPU, 0)))
    observe(state, CardReading(0, temperature=71), holders=None, hung=frozenset({0}))
    assert labels_of(state, "br_gpu_temperature_celsius") == []


async def test_series_of_a_vanished_card_and_of_an_ended_pod_end() -> None:
    state = new_state(listed(GPU, *devices(GPU, 0, 1)))
    readings = [CardReading(0, temperature=1), CardReading(1, temperature=2)]
    observe(state, *readings, holders={(GPU, "card_0"): TRAIN})
    assert any("train" in dict(labels).values() for _, labels in samples(state))
    hold(state, listed(GPU, *devices(GPU, 1)))
    assert {dict(labels).get("card") for _, labels in samples(state)} == {None, "card_1"}
    observe(state, *readings, holders={})
    assert not any("train" in dict(labels).values() for _, labels in samples(state))


async def test_events_are_counted() -> None:
    state = new_state(listed(GPU, *devices(GPU, 0)))
    counters = state.counters
    counters.registered(GPU)
    counters.restarted(GPU, StreamEnded("the kubelet ended it"))
    counters.allocations[GPU, "refused"] += 2
    counters.list_sent(GPU)
    counters.turned("host-scan", 0.25)
    assert value(state, "br_gpu_registrations_total", resource=GPU) == 1
    assert value(state, "br_gpu_registered", resource=GPU) == 1
    assert value(state, "br_gpu_restarts_total", subtree=GPU, cause="StreamEnded") == 1
    assert value(state, "br_gpu_allocations_total", resource=GPU, outcome="refused") == 2
    assert value(state, "br_gpu_probe_seconds", probe="host-scan") == 0.25
    assert (value(state, "br_gpu_last_list_timestamp_seconds", resource=GPU) or 0) > 1.7e9
    assert (value(state, "process_resident_memory_bytes") or 0) > 1e6


@given(st.lists(st.floats(min_value=0, max_value=10)))
def test_the_histogram_counts_each_call_once_in_the_first_fitting_bucket(
    times: list[float],
) -> None:
    latency = Latency()
    for each in times:
        latency.add(each)
    assert sum(latency.counts) == len(times)
    for place, bound in enumerate(CALL_BOUNDS):
        assert sum(latency.counts[: place + 1]) == sum(each <= bound for each in times)
    assert latency.total == pytest.approx(sum(times))


def test_the_node_bounds_the_number_of_series() -> None:
    counters = Counters()
    for number in range(1000):
        counters.restarted(GPU, StreamEnded(f"text {number}"))
    assert len(counters.restarts) == 1


def test_the_daemon_imports_no_metrics_library_unless_asked() -> None:
    names = "{'prometheus_client', 'h11', 'rich'}"
    program = (
        f"import sys, biren_plugin.cli, biren_plugin.daemon; print({names} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("set()\n", "")


async def test_promtool_finds_no_problem() -> None:
    promtool = need("promtool", "prometheus")
    state = new_state(listed(GPU, *devices(GPU, 0), SICK))
    observe(state, CardReading(0, temperature=1, power=2, ecc_corrected=3), holders={})
    state.counters.registered(GPU)
    state.counters.restarted(GPU, StreamEnded(""))
    state.counters.allocations[GPU, "answered"] += 1
    state.counters.turned("host-scan", 0.1)
    result = subprocess.run(  # noqa: ASYNC221 - nothing else runs in this test
        [promtool, "check", "metrics"], input=Metrics(state).text(), capture_output=True
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
