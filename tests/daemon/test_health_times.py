"""The time of a card's last change of health."""

from biren_plugin.core.model import Device, Inventory
from biren_plugin.daemon_state import HealthTimes
from tests.support.cards import GPU, card, listed

WELL = Device(card(0), GPU)
SICK = WELL.because("it is hot")
SICKER = SICK.because("it hangs")


def look(times: HealthTimes, now: float, *devices: Device) -> None:
    times.update(Inventory((listed(GPU, *devices),)), now)


def test_the_time_is_that_of_the_last_change_of_health_not_of_the_last_reason() -> None:
    times = HealthTimes()
    look(times, 1.0, WELL)
    look(times, 2.0, WELL)
    assert times.since(WELL) == 1.0
    assert times.since(SICK) is None, "somebody else says so, and no inventory"
    look(times, 3.0, SICK)
    look(times, 4.0, SICKER)
    assert times.since(SICK) == 3.0
    look(times, 5.0, WELL)
    assert times.since(WELL) == 5.0


def test_a_card_that_left_is_forgotten_and_starts_again() -> None:
    times = HealthTimes()
    look(times, 1.0, WELL)
    look(times, 2.0)
    assert times.since(WELL) is None
    look(times, 3.0, WELL)
    assert times.since(WELL) == 3.0
