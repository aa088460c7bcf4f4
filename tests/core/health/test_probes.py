"""Each probe finds its own fault and gives advice, and missing data is not a fault."""

import re
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.core.health.evidence import RISE_HOLD, Evidence, History, Rising
from biren_plugin.core.health.probes import (
    OPTIONAL,
    PROBES,
    find,
)
from biren_plugin.core.model import Device
from biren_plugin.core.parse.brml import CardReading, LibraryStatus
from biren_plugin.core.parse.card import Card, FunctionState, Link, NodeState
from tests.support.cards import GPU, card

CARD = attrs.evolve(card(0, 0, address="0000:3b:00.0"), link=Link(32.0, 16, 32.0, 16))


def look(
    seen: Card = CARD, *, history: History | None = None, now: float = 0.0, **rest: Any
) -> Evidence:
    return Evidence(Device(seen, GPU), history or History(), now, **rest)


def found(*looks: Evidence) -> list[tuple[str, bool]]:
    """Return the findings of the last reading: the probe, and whether the finding is severe."""
    return [
        (each.probe.name, each.severe) for each in [find(one, frozenset()) for one in looks][-1]
    ]


def reading(**said: Any) -> CardReading:
    return CardReading(0, **said)


def test_no_fault_is_found_on_a_healthy_card() -> None:
    assert not found(look())
    assert not found(look(reading=reading(status=LibraryStatus.OK)))


def test_no_fault_is_found_without_data() -> None:
    bare = Card("card_0", 0, node=NodeState.UNKNOWN, function=FunctionState.UNKNOWN)
    assert not found(look(bare), look(bare, now=1.0, reading=reading()))


FAULTS: Mapping[str, tuple[Evidence, str, bool]] = {
    "gone": (look(attrs.evolve(CARD, present=False)), "bus", True),
    "no node": (look(attrs.evolve(CARD, node=NodeState.MISSING)), "device-node", True),
    "a file for a node": (look(attrs.evolve(CARD, node=NodeState.OTHER)), "device-node", True),
    "no module": (look(module_gone=True), "driver-module", True),
    "hanging attributes": (look(attrs.evolve(CARD, hung=True)), "sysfs", True),
    "garbage for a NUMA node": (
        look(attrs.evolve(CARD, numa_misread="numa_node reads '?'")),
        "sysfs",
        False,
    ),
    "a function bound elsewhere": (
        look(attrs.evolve(CARD, unbound=("0000:3b:00.1 (biren)",))),
        "vfio-binding",
        True,
    ),
    "silence": (look(attrs.evolve(CARD, function=FunctionState.SILENT)), "pci-config", True),
    "library hangs": (look(library_hung=True), "library-hang", True),
    "library timed out": (look(reading=reading(timed_out=True)), "library-hang", True),
    "a warning": (look(reading=reading(status=LibraryStatus.WARNING)), "library-status", False),
    "critical": (look(reading=reading(status=LibraryStatus.CRITICAL)), "library-status", True),
    "an error": (look(reading=reading(status=LibraryStatus.ERROR)), "library-status", True),
    "shutdown threshold": (
        look(reading=reading(temperature=105, shutdown_temperature=105, slowdown_temperature=95)),
        "library-temperature",
        True,
    ),
    "slowdown threshold": (
        look(reading=reading(temperature=95, shutdown_temperature=105, slowdown_temperature=95)),
        "library-temperature",
        False,
    ),
    "another split": (look(reading=reading(svi_current=4)), "library-split", True),
    "unknown to the library": (look(library_knows=False), "library-presence", False),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_by_its_own_probe_only(fault: str) -> None:
    seen, probe, severe = FAULTS[fault]
    assert found(seen) == [(probe, severe)]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_finding_is_one_line_with_advice(fault: str) -> None:
    [finding] = find(FAULTS[fault][0], frozenset())
    assert "\n" not in finding.text
    assert re.search(r"\b(see|check|reboot|reload|reset|replace|on the node)\b", finding.text)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_disabled_probe_finds_nothing(fault: str) -> None:
    seen, probe, _ = FAULTS[fault]
    assert not find(seen, frozenset({probe}))


def test_a_risen_counter_is_reported_with_its_previous_value() -> None:
    history = History()
    for now, count in enumerate((3, 7, 9)):
        looked = look(attrs.evolve(CARD, aer_fatal=count), history=history, now=float(now))
        found = find(looked, frozenset())
    assert "have risen above 3;" in found[0].text, "its last quiet value"
    find(look(attrs.evolve(CARD, aer_fatal=9), history=history, now=60.0), frozenset())
    [finding] = find(look(attrs.evolve(CARD, aer_fatal=11), history=history, now=61.0), frozenset())
    assert "have risen above 9;" in finding.text


def test_a_counter_that_wraps_or_is_reset_starts_again() -> None:
    counter = Rising()
    assert [
        counter.risen_above(value, float(now)) for now, value in enumerate((2**63, 0, None))
    ] == [None] * 3
    assert counter.risen_above(1, 3.0) == 0


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"present": False}, "no longer split by SR-IOV; see `lspci -nnkd 1ee0:`"),
        ({"node": NodeState.MISSING}, "see `lspci -nnk -s 0000:3b:00.0`"),
        ({"node": NodeState.OTHER}, "remove it and reload vfio-pci"),
    ],
)
def test_a_vfio_group_has_its_own_advice(fault: dict[str, Any], said: str) -> None:
    group = attrs.evolve(CARD, name="/dev/vfio/0", physical_id=0x3B << 8, **fault)
    [finding] = find(look(group), frozenset())
    assert finding.severe
    assert said in finding.text


def test_a_temperature_counts_from_its_threshold_on() -> None:
    for temperature, severe in ((94, []), (95, [False]), (104, [False]), (105, [True])):
        hot = reading(temperature=temperature, shutdown_temperature=105, slowdown_temperature=95)
        assert found(look(reading=hot)) == [("library-temperature", each) for each in severe]


def test_a_cool_card_has_no_finding() -> None:
    cool = reading(temperature=94, shutdown_temperature=105, slowdown_temperature=95)
    assert not found(look(reading=cool))
    assert not found(look(reading=reading(temperature=200))), "without a threshold it says nothing"


@pytest.mark.parametrize(
    ("unhealthy_on", "severe"),
    [
        (LibraryStatus.WARNING, [True, True, True]),
        (LibraryStatus.CRITICAL, [False, True, True]),
        (LibraryStatus.ERROR, [False, False, True]),
    ],
)
def test_the_operator_chooses_which_status_counts(
    unhealthy_on: LibraryStatus, severe: list[bool]
) -> None:
    bad = (LibraryStatus.WARNING, LibraryStatus.CRITICAL, LibraryStatus.ERROR)
    looks = [look(reading=reading(status=each), unhealthy_on=unhealthy_on) for each in bad]
    assert [found(each) for each in looks] == [[("library-status", each)] for each in severe]


COUNTERS: Mapping[str, tuple[str, bool]] = {
    "aer_fatal": ("aer-fatal", True),
    "aer_nonfatal": ("aer-nonfatal", False),
    "ecc_uncorrected": ("library-ecc", True),
}


@pytest.mark.parametrize("counter", COUNTERS)
def test_a_rising_counter_is_a_fault_and_stays_one_for_a_while(counter: str) -> None:
    history = History()

    def at(now: float, value: int | None) -> list[tuple[str, bool]]:
        if counter == "ecc_uncorrected":
            said = reading(ecc_uncorrected=value)
            return found(look(history=history, now=now, reading=said))
        counted: dict[str, Any] = {counter: value}
        return found(look(attrs.evolve(CARD, **counted), history=history, now=now))

    assert at(0.0, 7) == [], "what happened before we came is no news"
    assert at(1.0, 7) == []
    assert at(2.0, 8) == [COUNTERS[counter]]
    assert at(3.0, None) == [COUNTERS[counter]], "missing data takes nothing back"
    assert at(2.0 + RISE_HOLD - 0.1, 8) == [COUNTERS[counter]]
    assert at(2.0 + RISE_HOLD, 8) == []
    assert at(20.0, 0) == [], "a reset counter is no rise"
    assert at(21.0, 1) == [COUNTERS[counter]]


def test_the_text_of_a_rising_counter_stays_the_same() -> None:
    history = History()
    texts = [
        find(look(attrs.evolve(CARD, aer_fatal=n), history=history, now=float(n)), frozenset())
        for n in range(5)
    ]
    assert texts[0] == []
    assert len(set(map(tuple, texts[1:]))) == 1, "each look would be a line in the log"


@given(st.lists(st.tuples(st.floats(0, 20), st.none() | st.integers(0, 5)), min_size=1))
def test_a_counter_is_no_longer_a_fault_after_the_hold_time(
    history: list[tuple[float, int | None]],
) -> None:
    rising, now, last, rose = Rising(), 0.0, None, None
    for wait, value in history:
        now += wait
        said = rising.risen_above(value, now)
        if value is not None:
            if last is not None and value > last:
                rose = now
            last = value
        assert (said is not None) == (rose is not None and now - rose < RISE_HOLD)


def test_a_link_with_fewer_lanes_is_a_warning_and_a_slower_one_is_not() -> None:
    history = History()
    narrow = attrs.evolve(CARD, link=Link(32.0, 8, 32.0, 16))
    slow = attrs.evolve(CARD, link=Link(2.5, 16, 32.0, 16))
    assert not found(look(narrow, history=History())), "it may never have had more"
    assert not found(look(CARD, history=history), look(slow, history=history))
    assert found(look(narrow, history=history)) == [("link-width", False)]
    assert not found(look(CARD, history=history))


def test_probe_names_are_unique_and_basic_probes_cannot_be_disabled() -> None:
    names = [probe.name for probe in PROBES]
    assert len(set(names)) == len(names)
    assert set(OPTIONAL) == set(names) - {"bus", "device-node"}
    assert not {probe.name for probe in PROBES if probe.indirect and probe.always}


def test_several_faults_give_several_findings() -> None:
    sick = attrs.evolve(CARD, node=NodeState.MISSING, function=FunctionState.SILENT)
    assert found(look(sick, library_hung=True)) == [
        ("device-node", True),
        ("pci-config", True),
        ("library-hang", True),
    ]


numbers = st.none() | st.integers(-(2**70), 2**70)
cards = st.builds(
    Card,
    name=st.sampled_from(["card_0", "/dev/vfio/7"]),
    number=st.integers(0, 10**9),
    physical_id=numbers,
    pci_path=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    split=numbers,
    link=st.builds(Link, width=numbers),
    node=st.sampled_from(NodeState),
    function=st.sampled_from(FunctionState),
    aer_fatal=numbers,
    aer_nonfatal=numbers,
    unbound=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    hung=st.booleans(),
    present=st.booleans(),
)
readings = st.none() | st.builds(
    CardReading,
    number=st.integers(0, 10**9),
    svi_current=numbers,
    status=st.none() | st.sampled_from(LibraryStatus),
    temperature=numbers,
    shutdown_temperature=numbers,
    slowdown_temperature=numbers,
    ecc_uncorrected=numbers,
    timed_out=st.booleans(),
)


@given(st.lists(st.tuples(cards, readings), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_no_value_that_a_host_may_show_makes_a_probe_raise(
    looks: list[tuple[Card, CardReading | None]], hung: bool, known: bool
) -> None:
    """A probe that raised would end the judgement of every card."""
    history = History()
    for now, (seen, said) in enumerate(looks):
        rest = {"library_hung": hung, "library_knows": known, "reading": said}
        for finding in find(look(seen, history=history, now=float(now), **rest), frozenset()):
            assert finding.text


def test_links_that_went_down_are_a_warning_until_they_are_up_again() -> None:
    history = History()
    up = [look(history=history, reading=reading(links=8, links_up=up)) for up in (5, 3, 5)]
    assert found(up[0]) == [], "ports that were never up are not connected"
    assert found(up[1]) == [("library-links", False)]
    assert found(up[2]) == []


@pytest.mark.parametrize("name", ["card_0", "/dev/vfio/0"])
def test_a_card_with_unknown_address_has_advice_without_one(name: str) -> None:
    unknown = Card(name, 0, function=FunctionState.SILENT, node=NodeState.MISSING)
    history = History(widest=16)
    for seen in (
        unknown,
        attrs.evolve(unknown, present=False),
        attrs.evolve(unknown, link=Link(width=8)),
    ):
        for finding in find(look(seen, history=history), frozenset()):
            assert "None" not in finding.text
            assert "  " not in finding.text
