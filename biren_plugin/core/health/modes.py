"""How each probe counts, and which flag decides that.

For one probe `--probe NAME=MODE` takes precedence over `--disable-probe NAME`, and that over `--health-mode`.
A probe that is always on (a missing card) counts whatever the flags are.
"""

from collections.abc import Collection, Mapping
from typing import Final, Literal, NamedTuple, get_args

HealthMode = Literal["enforce", "observe", "off"]
MODES: Final[tuple[HealthMode, ...]] = get_args(HealthMode)


class ProbeMode(NamedTuple):
    """How one probe counts."""

    mode: HealthMode
    by: str
    """The flag that decides it; empty for a probe that no flag changes."""


def modes_of(
    always: Mapping[str, bool],
    mode: HealthMode,
    disabled: Collection[str],
    probes: Mapping[str, HealthMode],
) -> dict[str, ProbeMode]:
    """The mode of every probe, by name: `mode` is of all, `disabled` are off, `probes` are of single ones.

    `always` has each probe, and whether it is always on.
    """
    found = {}
    for name, is_always in always.items():
        if is_always:
            found[name] = ProbeMode("enforce", "")
        elif name in probes:
            found[name] = ProbeMode(probes[name], "--probe")
        elif name in disabled:
            found[name] = ProbeMode("off", "--disable-probe")
        else:
            found[name] = ProbeMode(mode, "--health-mode")
    return found


def describe_modes(modes: Mapping[str, ProbeMode]) -> str:
    """The probes that are not enforced: `observe (--health-mode): sysfs, pci-config; off (--probe): bus`.

    Empty if each is enforced.
    """
    groups: dict[ProbeMode, list[str]] = {}
    for name, each in modes.items():
        if each.mode != "enforce":
            groups.setdefault(each, []).append(name)
    return "; ".join(
        f"{each.mode} ({each.by}): {', '.join(names)}" for each, names in groups.items()
    )
