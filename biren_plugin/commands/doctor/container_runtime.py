"""The configuration of containerd or CRI-O for CDI and runtimes, and what a kubelet's version allows.

Sources: containerd's docs/cri/config.md for versions 1.7 and 2.x, crio.conf(5) and crio.conf.d(5), and
the table of feature gates in the Kubernetes documentation (`DevicePluginCDIDevices`).
"""

import itertools
from collections.abc import Mapping
from typing import Any, Final

import attrs

from biren_plugin.core.cdi.spec import RUNTIME_CDI_DIRS

_CRI_PLUGINS: Final = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
"""The CRI plugin's name in configuration versions 2 and 3."""
CDI_GATE: Final = "DevicePluginCDIDevices"
LEAST_KUBELET: Final = (1, 13)
_LEAST_CDI_KUBELET: Final = (1, 28)
_CDI_BY_DEFAULT: Final = (1, 29)
_CDI_BY_DEFAULT_CONTAINERD: Final = (2, 0)


@attrs.frozen
class RuntimeFacts:
    """Facts from a runtime's configuration; None or empty if it leaves a value to the default."""

    enable_cdi: bool | None = None
    cdi_dirs: tuple[str, ...] = RUNTIME_CDI_DIRS
    programs: Mapping[str, str] = attrs.Factory(dict)
    """The program of each runtime that names one, by name."""
    runtimes: tuple[str, ...] = ()
    """Names of the configured runtimes, which are the handlers of RuntimeClasses."""


def containerd_facts(*configs: Mapping[str, Any]) -> RuntimeFacts:
    """Return the facts in the parsed `config.toml` and the files that it imports, in their order.

    No content makes this raise; a later file takes precedence.
    """
    facts = RuntimeFacts()
    for config, plugin in itertools.product(configs, _CRI_PLUGINS):
        table = _table(_table(config, "plugins"), plugin)
        if isinstance(enabled := table.get("enable_cdi"), bool):
            facts = attrs.evolve(facts, enable_cdi=enabled)
        if isinstance(folders := table.get("cdi_spec_dirs"), list):
            facts = attrs.evolve(facts, cdi_dirs=tuple(map(str, folders)))
        runtimes = _table(_table(table, "containerd"), "runtimes")
        facts = _with_runtimes(facts, runtimes)
    return facts


def _with_runtimes(facts: RuntimeFacts, runtimes: Mapping[str, Any]) -> RuntimeFacts:
    """Return the facts with these tables of runtimes: containerd's `options.BinaryName`, CRI-O's `runtime_path`."""
    programs = dict(facts.programs)
    for name in runtimes:
        table = _table(runtimes, name)
        program = _table(table, "options").get("BinaryName") or table.get("runtime_path")
        if isinstance(program, str):
            programs[str(name)] = program
    names = facts.runtimes + tuple(map(str, runtimes))
    return attrs.evolve(facts, runtimes=names, programs=programs)


def crio_facts(*configs: Mapping[str, Any]) -> RuntimeFacts:
    """Return the facts in the parsed `crio.conf` and its drop-ins; CRI-O always resolves CDI names."""
    facts = RuntimeFacts(enable_cdi=True)
    for config in configs:
        table = _table(_table(config, "crio"), "runtime")
        if isinstance(folders := table.get("cdi_spec_dirs"), list):
            facts = attrs.evolve(facts, cdi_dirs=tuple(map(str, folders)))
        facts = _with_runtimes(facts, _table(table, "runtimes"))
    return facts


def imported(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return patterns of the files that a configuration imports."""
    patterns = config.get("imports")
    return tuple(map(str, patterns)) if isinstance(patterns, list) else ()


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = tables.get(name)
    return table if isinstance(table, Mapping) else {}


def containerd_reads_cdi(facts: RuntimeFacts, version: tuple[int, ...] | None) -> bool | None:
    """Return whether containerd resolves CDI names, by its configuration or else its version; None: unknown."""
    if facts.enable_cdi is not None:
        return facts.enable_cdi
    return None if version is None else version >= _CDI_BY_DEFAULT_CONTAINERD


def kubelet_passes_cdi(version: tuple[int, ...] | None, gate: bool | None) -> bool | None:
    """Return whether the kubelet passes CDI names on; None: unknown. `gate` is None if it is not configured."""
    if gate is False:
        return False
    if version is None:
        return gate
    return version >= _CDI_BY_DEFAULT or (bool(gate) and version >= _LEAST_CDI_KUBELET)
