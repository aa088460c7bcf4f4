"""A card returns to service after its steady time, which grows each time it flaps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.core.health.probes import PROBES, Finding, Probe
from biren_plugin.core.health.recovery import FLAP_MEMORY, LONGEST, Recovery

CONFIG, TEMPERATURE = (
    probe for probe in PROBES if probe.name in ("pci-config", "library-temperature")
)
SILENT = Finding(CONFIG, "its function is silent; reboot")
HOT = Finding(TEMPERATURE, "it is hot; cool it")


def ill(recovery: Recovery, now: float, *findings: Finding) -> tuple[str, ...]:
    return recovery.update(findings or (SILENT,), (), now)


def well(recovery: Recovery, now: float, *suspects: Probe) -> tuple[str, ...]:
    return recovery.update((), suspects, now)


def time_to_return(recovery: Recovery, now: float) -> float:
    """Return how many whole seconds from `now` it must be healthy."""
    return next(wait for wait in range(2000) if not well(recovery, now + wait))


def test_a_card_that_was_never_faulty_needs_no_recovery() -> None:
    assert well(Recovery(30.0), 5.0) == ()


def test_a_faulty_card_is_out_of_service_with_its_findings() -> None:
    assert ill(Recovery(30.0), 0.0, SILENT, HOT) == (SILENT.text, HOT.text)


def test_a_card_returns_after_its_steady_time_and_its_reason_says_so() -> None:
    recovery = Recovery(30.0)
    ill(recovery, 0.0)
    [reason] = well(recovery, 1.0)
    assert "has recovered" in reason
    assert "30 s" in reason
    assert SILENT.text in reason, "the cause stays visible"
    assert well(recovery, 20.0) == (reason,), "the reason is no countdown: each would be a list"
    assert well(recovery, 30.9) == (reason,)
    assert well(recovery, 31.0) == ()


def test_a_relapse_during_recovery_starts_the_steady_time_again() -> None:
    recovery = Recovery(30.0)
    ill(recovery, 0.0)
    well(recovery, 1.0)
    ill(recovery, 25.0)
    assert well(recovery, 31.0)
    assert time_to_return(recovery, 31.0) == 30.0


def test_a_flapping_cards_steady_time_doubles_each_time() -> None:
    recovery, now, waits = Recovery(30.0), 0.0, []
    for _ in range(7):
        ill(recovery, now)
        waits.append(time_to_return(recovery, now))
        now += waits[-1] + 1
    assert waits == [30, 60, 120, 240, 480, LONGEST, LONGEST]


def test_one_long_fault_is_one_relapse() -> None:
    recovery, now = Recovery(30.0), 1e6
    ill(recovery, now)
    well(recovery, now)
    well(recovery, now + 30.0)
    for second in range(31, 60):
        ill(recovery, now + second)
    assert time_to_return(recovery, now + 60.0) == 60.0


def test_the_reason_of_a_flapping_card_counts_its_relapses() -> None:
    recovery = Recovery(30.0)
    ill(recovery, 0.0)
    assert "failed again" not in well(recovery, 0.0)[0]
    well(recovery, 30.0)
    ill(recovery, 31.0)
    assert "failed again once" in well(recovery, 32.0)[0]
    well(recovery, 92.0)
    ill(recovery, 93.0)
    assert "failed again 2 times" in well(recovery, 94.0)[0]


def test_a_long_healthy_card_no_longer_counts_as_flapping() -> None:
    recovery = Recovery(30.0)
    ill(recovery, 0.0)
    well(recovery, 0.0)
    well(recovery, 30.0)
    ill(recovery, 30.0 + FLAP_MEMORY)
    assert time_to_return(recovery, 30.0 + FLAP_MEMORY) == 30.0


def test_findings_of_a_probe_that_becomes_suspect_are_withdrawn_at_once() -> None:
    recovery = Recovery(30.0)
    ill(recovery, 0.0)
    assert well(recovery, 1.0, SILENT.probe) == ()
    assert well(recovery, 1.5) == (), "nor does it come back when the probe is believed again"
    ill(recovery, 2.0)
    assert time_to_return(recovery, 3.0) == 30.0, "that was no illness, so this is no relapse"


def test_time_without_checks_does_not_count_as_steady() -> None:
    recovery = Recovery(30.0)
    ill(recovery, 0.0)
    well(recovery, 1.0)
    recovery.lose_sight()
    assert time_to_return(recovery, 100.0) == 30.0


def test_other_causes_are_not_withdrawn_with_a_suspects_findings() -> None:
    recovery = Recovery(30.0)
    ill(recovery, 0.0, SILENT, HOT)
    assert well(recovery, 1.0, SILENT.probe)


@pytest.mark.parametrize("steady", [0.0, 700.0])
def test_every_steady_time_is_kept(steady: float) -> None:
    recovery = Recovery(steady)
    ill(recovery, 0.0)
    assert time_to_return(recovery, 0.0) == steady


@given(
    st.floats(0, 1000),
    st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=30),
)
def test_a_card_in_service_has_been_healthy_for_its_steady_time(
    steady: float, history: list[tuple[float, bool]]
) -> None:
    recovery, now, last_ill = Recovery(steady), 0.0, None
    well_since = None
    for wait, is_ill in history:
        now += wait
        reasons = ill(recovery, now) if is_ill else well(recovery, now)
        if is_ill:
            assert reasons
            last_ill, well_since = now, None
        elif last_ill is not None:
            well_since = now if well_since is None else well_since
            assert reasons or now - well_since >= steady
            if now - well_since >= max(steady, LONGEST):
                assert not reasons, "no card waits for ever"
