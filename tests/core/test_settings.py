"""Invalid settings are refused with the valid values."""

from pathlib import Path

import attrs
import pytest

from biren_plugin.core.setting_field import read_words
from biren_plugin.core.settings import MAX_PULSE, Settings
from biren_plugin.errors import BadSetting, UsageError


@pytest.mark.parametrize("pulse", [0, 1, MAX_PULSE])
def test_a_pulse_from_zero_to_one_day_is_accepted(pulse: int) -> None:
    assert Settings(pulse=pulse).pulse == pulse


@pytest.mark.parametrize("pulse", [-1, MAX_PULSE + 1])
def test_any_other_pulse_is_refused_with_the_valid_values(pulse: int) -> None:
    with pytest.raises(UsageError, match=rf"^--pulse {pulse}: .* from 0 .* to {MAX_PULSE}$"):
        Settings(pulse=pulse)


def test_flags_without_effect_are_reported_with_the_reason() -> None:
    given = Settings(container_runtime="kata", mount_host_path=True, mount_dri_device=True)
    assert list(given.without_effect()) == ["--mount-host-path", "--mount-dri-device"]
    assert not attrs.evolve(given, container_runtime="runc").without_effect()
    assert not Settings(container_runtime="kata").without_effect()
    assert list(Settings(overwrite_cdi_config=True).without_effect()) == ["--overwrite-cdi-config"]
    assert not Settings(overwrite_cdi_config=True, cdi_feature=True).without_effect()


def test_flags_of_another_way_of_offering_are_reported() -> None:
    given = Settings(evict_on=("bus",), kubeconfig=Path("/k"))
    assert given.without_effect() == {
        "--evict-on": "give --offer-by dra too",
        "--kubeconfig": "give --offer-by dra or --hami too",
    }
    assert not attrs.evolve(given, offer_by="dra").without_effect()
    assert not Settings(kubeconfig=Path("/k"), hami=True).without_effect()
    assert list(Settings(placement="spread", offer_by="dra").without_effect()) == ["--placement"]


def test_only_settings_that_differ_from_the_defaults_are_shown() -> None:
    assert Settings().differing() == "all defaults"
    told = Settings(pulse=300, host_root=Path("/host")).differing()
    assert told == "pulse=300, host_root=/host"


def test_repeatable_settings_are_shown_as_they_are_given() -> None:
    told = Settings(disable_probe=("sysfs", "aer-fatal")).differing()
    assert told == "disable_probe=sysfs,aer-fatal"


def test_a_text_is_used_unchanged() -> None:
    assert read_words(str, [" as it is "]) == " as it is "


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:9451", "127.0.0.1", 9451),
        (":9451", "", 9451),
        ("[::1]:9451", "::1", 9451),
        ("node-3.example:1", "node-3.example", 1),
    ],
)
def test_a_metrics_address_is_a_host_and_a_port(address: str, host: str, port: int) -> None:
    assert Settings(metrics_address=address).metrics_host_and_port() == (host, port)


@pytest.mark.parametrize(
    "address", ["9451", "localhost", "a:b", "::1:9451", ":0", ":65536", "a b:1", "[::1]", ":1 "]
)
def test_any_other_metrics_address_is_refused_with_the_valid_form(address: str) -> None:
    with pytest.raises(BadSetting, match=r"give HOST:PORT, as in "):
        Settings(metrics_address=address)


def test_hami_and_resource_claims_exclude_each_other() -> None:
    with pytest.raises(
        BadSetting, match=r"^--hami true: .*; give --hami or --offer-by dra, not both$"
    ):
        Settings(hami=True, offer_by="dra")
