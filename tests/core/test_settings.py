"""Invalid settings are refused with the valid values."""

from pathlib import Path
from typing import Any

import attrs
import pytest

from biren_plugin.core.setting_field import key_of, read_words
from biren_plugin.core.settings import MAX_PULSE, SETTINGS, Settings, SettingsFile
from biren_plugin.core.useless_settings import without_effect
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
    assert list(without_effect(given)) == ["--mount-host-path", "--mount-dri-device"]
    assert not without_effect(attrs.evolve(given, container_runtime="runc"))
    assert not without_effect(Settings(container_runtime="kata"))
    assert list(without_effect(Settings(overwrite_cdi_config=True))) == ["--overwrite-cdi-config"]
    assert not without_effect(Settings(overwrite_cdi_config=True, cdi_feature=True))


def test_flags_of_another_way_of_offering_are_reported() -> None:
    given = Settings(evict_on=("bus",), kubeconfig=Path("/k"))
    assert without_effect(given) == {
        "--evict-on": "give --offer-by dra too",
        "--kubeconfig": "give --offer-by dra or --hami too",
    }
    assert not without_effect(attrs.evolve(given, offer_by="dra", node_name="n"))
    assert not without_effect(Settings(kubeconfig=Path("/k"), hami=True))
    assert list(without_effect(Settings(placement="spread", offer_by="dra"))) == ["--placement"]


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
        ("[::ffff:1.2.3.4]:80", "::ffff:1.2.3.4", 80),
    ],
)
def test_a_metrics_address_is_a_host_and_a_port(address: str, host: str, port: int) -> None:
    assert Settings(metrics_address=address).metrics_host_and_port() == (host, port)


@pytest.mark.parametrize(
    "address", ["9451", "localhost", "a:b", "::1:9451", ":0", ":65536", "a b:1", "[::1]", ":1 ",
     "1.2.3.4.5:80", "300.1.1.1:80", "1.2.3:80", "5:80", "[:::]:80", "[1:2]:80", "a/b:80"],
)  # fmt: skip
def test_any_other_metrics_address_is_refused_with_the_valid_form(address: str) -> None:
    with pytest.raises(BadSetting, match=r"give HOST:PORT, as in "):
        Settings(metrics_address=address)


def test_hami_and_resource_claims_exclude_each_other() -> None:
    with pytest.raises(
        BadSetting, match=r"^--hami true: .*; give --hami or --offer-by dra, not both$"
    ):
        Settings(hami=True, offer_by="dra")


@pytest.mark.parametrize("name", ["Node", "a_b", "-a", "a-", "a..b", ".a", "a.", "a b", "x" * 254])
def test_a_name_that_no_node_can_have_is_refused(name: str) -> None:
    with pytest.raises(BadSetting, match=r"^--node-name .*: give the name of the Node object"):
        Settings(node_name=name)


def with_values(given: dict[str, Any]) -> Settings:
    return Settings(**given)


FOLDERS = [
    field.name
    for field in SETTINGS
    if field.type in (Path, Path | None) and field.name not in ("host_root", "kubeconfig")
]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_directory_of_the_node_that_depends_on_the_working_directory_is_refused(
    name: str,
) -> None:
    flag = f"--{key_of(name)}"
    with pytest.raises(BadSetting, match=rf"^{flag} var/x: give a path that begins with /$"):
        with_values({name: Path("var/x")})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("device_plugin_dir", "pod_resources_dir"),
        ("device_plugin_dir", "status_dir"),
        ("pod_resources_dir", "status_dir"),
    ],
)
def test_sockets_that_would_meet_in_one_directory_are_refused(first: str, second: str) -> None:
    with pytest.raises(BadSetting, match=rf"^--{key_of(second)} /a: .* --{key_of(first)} "):
        with_values({first: Path("/a"), second: Path("/a")})
    default = getattr(Settings(), second)
    with pytest.raises(BadSetting, match=rf"^--{key_of(first)} {default}: .* --{key_of(second)} "):
        with_values({first: default})


def test_hami_and_vfio_groups_exclude_each_other() -> None:
    with pytest.raises(BadSetting, match=r"not VFIO groups; give --hami or --container-runtime "):
        Settings(hami=True, container_runtime="kata")


def test_a_kubeconfig_needs_the_name_of_the_node_for_dra() -> None:
    with pytest.raises(BadSetting, match=r"^--kubeconfig /k: give --node-name too"):
        Settings(kubeconfig=Path("/k"), offer_by="dra")
    Settings(kubeconfig=Path("/k"), offer_by="dra", node_name="n")


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        ({"offer_by": "dra", "cdi_feature": True, "overwrite_cdi_config": True, "cdi_dir": Path("/c")},
         ["--cdi-feature", "--overwrite-cdi-config", "--cdi-dir"]),
        ({"cdi_dir": Path("/c")}, ["--cdi-dir"]),
        ({"cdi_dir": Path("/c"), "cdi_feature": True}, []),
        ({"kubelet_root": Path("/k")}, ["--kubelet-root"]),
        ({"kubelet_root": Path("/k"), "offer_by": "dra"}, []),
        ({"node_name": "n"}, ["--node-name"]),
        ({"node_name": "n", "hami": True}, []),
        ({"node_name": "n", "file": SettingsFile(Path("/c/n.yaml"), Path("/c"))}, []),
        ({"node_name": "n", "file": SettingsFile(Path("/c/n.yaml"))}, ["--node-name"]),
        ({"unhealthy_on": "error", "container_runtime": "kata"}, ["--unhealthy-on"]),
        ({"unhealthy_on": "error", "health_mode": "off"}, ["--unhealthy-on"]),
        ({"claim_cdi_dir": Path("/c")}, []),  # pods of claims are known in each way of offering
        ({"hami": True, "cdi_feature": True, "placement": "spread"}, []),
    ],
)  # fmt: skip
def test_each_flag_that_the_others_make_useless_is_reported(
    given: dict[str, Any], flags: list[str]
) -> None:
    assert list(without_effect(Settings(**given))) == flags
