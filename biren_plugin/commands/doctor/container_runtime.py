"""What the configuration of containerd or CRI-O says about CDI and runtimes; what a kubelet's version allows.

Sources: containerd's docs/cri/config.md for versions 1.7 and 2.x, crio.conf(5) and crio.conf.d(5), and the table of feature gates in the
Kubernetes documentation (`DevicePluginCDIDevices`).
"""

import itertools
from collections.abc import Mapping
from typing import Any, Final

import attrs

from biren_plugin.core.cdi.spec import RUNTIME_CDI_DIRS

_CRI_PLUGINS: Final = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
"""Of configuration versions 2 and 3."""
CDI_GATE: Final = "DevicePluginCDIDevices"
LEAST_KUBELET: Final = (1, 13)
_LEAST_CDI_KUBELET: Final = (1, 28)
_CDI_BY_DEFAULT: Final = (1, 29)
_CDI_BY_DEFAULT_CONTAINERD: Final = (2, 0)


@attrs.frozen
class RuntimeFacts:
    """What its configuration says; None and empty where it leaves that to the defaults."""

    enable_cdi: bool | None = None
    cdi_dirs: tuple[str, ...] = RUNTIME_CDI_DIRS
    programs: Mapping[str, str] = attrs.Factory(dict)
    """The program of each runtime that names one, by name."""
    runtimes: tuple[str, ...] = ()
    """Names of the configured runtimes, as a RuntimeClass' handler has them."""


def containerd_facts(*configs: Mapping[str, Any]) -> RuntimeFacts:
    """What matters here of the parsed `config.toml` and the files that it imports, in their order.

    Whatever they hold, nothing here raises; what a later file says of a value counts.
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
    """As `containerd_facts`, of the parsed `crio.conf` and its drop-ins; CRI-O always resolves CDI names."""
    facts = RuntimeFacts(enable_cdi=True)
    for config in configs:
        table = _table(_table(config, "crio"), "runtime")
        if isinstance(folders := table.get("cdi_spec_dirs"), list):
            facts = attrs.evolve(facts, cdi_dirs=tuple(map(str, folders)))
        facts = _with_runtimes(facts, _table(table, "runtimes"))
    return facts


def imported(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Patterns of the files that a configuration imports."""
    patterns = config.get("imports")
    return tuple(map(str, patterns)) if isinstance(patterns, list) else ()


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = tables.get(name)
    return table if isinstance(table, Mapping) else {}


def containerd_reads_cdi(facts: RuntimeFacts, version: tuple[int, ...] | None) -> bool | None:
    """Whether it resolves CDI names: by its configuration, else by its version; None: not known."""
    if facts.enable_cdi is not None:
        return facts.enable_cdi
    return None if version is None else version >= _CDI_BY_DEFAULT_CONTAINERD


def kubelet_passes_cdi(version: tuple[int, ...] | None, gate: bool | None) -> bool | None:
    """Whether the kubelet hands CDI names on; `gate` as configured, None if it is not; None: not known."""
    if gate is False:
        return False
    if version is None:
        return gate
    return version >= _CDI_BY_DEFAULT or (bool(gate) and version >= _LEAST_CDI_KUBELET)
