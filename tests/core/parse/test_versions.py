"""Versions of the driver compare as numbers, and any other text is unknown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.core.parse.vendor import MINIMUM_DRIVER
from biren_plugin.core.parse.versions import driver_suffices, version_numbers


@pytest.mark.parametrize("text", ["1.2.2", "1.2.10", "1.10", "1.12.0", "2.0", "1.12.0-rc1\n"])
def test_a_new_enough_driver_suffices(text: str) -> None:
    assert driver_suffices(text) is True


@pytest.mark.parametrize("text", ["1.2.1", "1.2", "0.99.99", "1.1.12", "1.2.1-2.0"])
def test_an_old_driver_does_not_suffice(text: str) -> None:
    assert driver_suffices(text) is False


@pytest.mark.parametrize("text", ["", "7", "unknown", "v1.2.2", "1.2.2.", "1..2", "1.2.2.1.1.1.1"])
def test_a_text_that_is_not_a_version_is_unknown(text: str) -> None:
    assert driver_suffices(text) is None


@given(st.lists(st.integers(0, 999_999), min_size=2, max_size=6))
def test_versions_are_compared_part_by_part(numbers: list[int]) -> None:
    text = ".".join(map(str, numbers))
    assert version_numbers(text) == tuple(numbers)
    assert driver_suffices(text) is (tuple(numbers) >= MINIMUM_DRIVER)


@given(st.text(max_size=40))
def test_any_text_is_accepted_as_a_version(text: str) -> None:
    assert driver_suffices(text) in (None, True, False)
