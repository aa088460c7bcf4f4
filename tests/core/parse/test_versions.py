"""Versions of the driver compare as numbers, and what is no version says nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.core.parse.vendor import MINIMUM_DRIVER
from biren_plugin.core.parse.versions import driver_suffices, version_numbers


@pytest.mark.parametrize("text", ["1.2.2", "1.2.10", "1.10", "1.12.0", "2.0", "1.12.0-rc1\n"])
def test_driver_that_suffices(text: str) -> None:
    assert driver_suffices(text) is True


@pytest.mark.parametrize("text", ["1.2.1", "1.2", "0.99.99", "1.1.12", "1.2.1-2.0"])
def test_driver_that_is_too_old(text: str) -> None:
    assert driver_suffices(text) is False


@pytest.mark.parametrize("text", ["", "7", "unknown", "v1.2.2", "1.2.2.", "1..2", "1.2.2.1.1.1.1"])
def test_what_is_no_version_says_nothing(text: str) -> None:
    assert driver_suffices(text) is None


@given(st.lists(st.integers(0, 999_999), min_size=2, max_size=6))
def test_each_version_is_read_part_by_part(numbers: list[int]) -> None:
    text = ".".join(map(str, numbers))
    assert version_numbers(text) == tuple(numbers)
    assert driver_suffices(text) is (tuple(numbers) >= MINIMUM_DRIVER)


@given(st.text(max_size=40))
def test_any_text_is_taken(text: str) -> None:
    assert driver_suffices(text) in (None, True, False)
