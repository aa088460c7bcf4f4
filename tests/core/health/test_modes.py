"""Of the flags that set how a probe counts, one precedence holds, and it can be shown."""

import pytest

from biren_plugin.core.health.modes import ProbeMode, describe_modes
from biren_plugin.core.settings import Settings
from biren_plugin.errors import BadSetting


def test_the_flag_of_one_probe_comes_first_then_what_disables_it_then_the_mode_of_all() -> None:
    settings = Settings(
        health_mode="observe",
        disable_probe=("sysfs", "pci-config"),
        probe=("pci-config=enforce",),
    )
    modes = settings.health_policy.modes
    assert modes["pci-config"] == ProbeMode("enforce", "--probe")
    assert modes["sysfs"] == ProbeMode("off", "--disable-probe")
    assert modes["link-width"] == ProbeMode("observe", "--health-mode")
    assert modes["bus"] == ProbeMode("enforce", "")


def test_the_last_mode_of_a_probe_counts() -> None:
    settings = Settings(probe=("pci-config=off", "pci-config=enforce"))
    assert describe_modes(settings.health_policy.modes) == ""
    settings = Settings(probe=("pci-config=enforce", "pci-config=off"))
    assert describe_modes(settings.health_policy.modes) == "off (--probe): pci-config"


def test_only_what_is_not_enforced_is_described() -> None:
    assert describe_modes(Settings().health_policy.modes) == ""
    modes = Settings(probe=("sysfs=off", "aer-fatal=observe", "link-width=off")).health_policy.modes
    assert describe_modes(modes) == "off (--probe): sysfs, link-width; observe (--probe): aer-fatal"


@pytest.mark.parametrize("word", ["sysfs", "sysfs=", "sysfs=on", "bus=off", "=off", "x=off"])
def test_other_names_and_modes_are_refused(word: str) -> None:
    with pytest.raises(BadSetting, match="give NAME=enforce, NAME=observe or NAME=off"):
        Settings(probe=(word,))
