"""containerd or CRI-O: version, configuration, CDI directories and files, and Biren's own container runtime.

Sources: containerd's docs/cri/config.md for versions 1.7 and 2.x, crio.conf(5) and crio.conf.d(5).
"""

import itertools
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from biren_plugin.commands.cdi_file_commands import check_node
from biren_plugin.commands.doctor.diagnosis import Check, failure, ok, unknown
from biren_plugin.commands.doctor.kubelet_checks import program_version
from biren_plugin.core.cdi.spec import RUNTIME_CDI_DIRS
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.vendor import CDI_FILE, version_numbers
from biren_plugin.core.settings import Settings
from biren_plugin.host.host_paths import under
from biren_plugin.records import frozen

_CRI_PLUGINS: Final = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
"""The CRI plugin's name in configuration versions 2 and 3."""
_CDI_BY_DEFAULT_CONTAINERD: Final = (2, 0)


@frozen
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


_CONFIGURATIONS: Final = (
    "/etc/cri/containerd.toml",  # Talos; its /etc/containerd belongs to another containerd, without pods
    "/etc/containerd/config.toml",
    "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
    "/etc/k0s/containerd.toml",
    "/var/snap/microk8s/current/args/containerd.toml",
)
_CRIO_CONFIGURATION: Final = "/etc/crio/crio.conf"
_CRIO_DROP_INS: Final = "/etc/crio/crio.conf.d/*"
_PROGRAMS: Final = {"containerd": "containerd", "CRI-O": "crio"}
"""The display names of programs."""
_MAX_SIZE: Final = 1_000_000
_MAX_IMPORTS: Final = 32


def check_runtime(settings: Settings) -> Iterator[Check]:
    """Yield rows of the version and configuration of containerd, or of CRI-O if only that is configured."""
    found = _configuration(settings.host_root)
    name = found.program if found is not None else "containerd"
    text = program_version(_PROGRAMS[name], settings.host_root)
    version = version_numbers(text) if text is not None else None
    if version is None:
        yield unknown(name, f"no {_PROGRAMS[name]} binary visible from here")
    else:
        yield ok(name, f"{text}")
    if found is None:
        why = "no configuration of containerd or CRI-O visible from here"
        advice = "see `containerd config dump` or `crio status config` on the node"
        yield unknown("containerd's CDI directories", why, advice)
        yield unknown("biren runtime", why)
        return
    path, facts = found.path, found.facts
    yield _cdi_folders(settings, found, version)
    yield _vendor_runtime(settings, path, facts)


def _vendor_runtime(settings: Settings, path: str, facts: RuntimeFacts) -> Check:
    """Return the row of the vendor's container runtime: which handler a RuntimeClass may name on this node."""
    name = "biren runtime"
    variable = "" if settings.visible_devices == "index" else "--visible-devices=index"
    handlers = [
        f"{each} ({facts.programs[each]})" if each in facts.programs else each
        for each in facts.runtimes
        if vendor.RUNTIME_CLASS in f"{each} {facts.programs.get(each, '')}".lower()
    ]
    if handlers:
        seen = f"{path} has {', '.join(handlers)}, which adds {vendor.CONTROL_NODE} itself"
        advice = "harmless; pods of this plugin need no runtimeClassName"
        return ok(name, f"{seen}: a RuntimeClass may name it as its handler", advice)
    seen = f"none in {path}: a RuntimeClass can only have a plain handler here, such as runc"
    if under(settings.host_root, vendor.RUNTIME_TOOLKIT).is_dir():
        seen = f"{vendor.RUNTIME_TOOLKIT} is installed, but {seen}"
    advice = f"for images that read {vendor.VISIBLE_VARIABLE}, give {variable}" if variable else ""
    return ok(name, seen, advice)


@frozen
class _Configuration:
    """The container runtime's configuration on this node."""

    program: str
    path: str
    """The path on the host."""
    facts: RuntimeFacts


def _cdi_folders(
    settings: Settings, found: _Configuration, version: tuple[int, ...] | None
) -> Check:
    name = f"{found.program}'s CDI directories"
    path, facts = found.path, found.facts
    if not settings.cdi_feature:
        return ok(name, "not needed without --cdi-feature")
    match containerd_reads_cdi(facts, version):
        case False:
            return failure(
                name,
                f"CDI is off: {path} does not set enable_cdi = true",
                "set it in the CRI plugin's section, and restart containerd",
            )
        case None:
            seen = f"{path} leaves enable_cdi to the default, which is on from 2.0 on"
            return unknown(name, seen, "see `containerd --version` on the node")
        case _:
            folders = ", ".join(facts.cdi_dirs)
            if f"{settings.cdi_dir}" not in facts.cdi_dirs:
                advice = f"give --cdi-dir one of them, or add {settings.cdi_dir} to cdi_spec_dirs"
                return failure(name, f"{folders}; --cdi-dir is not among them", advice)
            return ok(name, folders)


def _configuration(root: Path) -> _Configuration | None:
    """Return the first configuration that exists and is TOML."""
    for path in _CONFIGURATIONS:
        config = _toml(under(root, path))
        if config is not None:
            more = [
                _toml(file) for pattern in imported(config) for file in _matching(root, pattern)
            ]
            facts = containerd_facts(config, *(each for each in more if each is not None))
            return _Configuration("containerd", path, facts)
    files = [under(root, _CRIO_CONFIGURATION), *_matching(root, _CRIO_DROP_INS)]
    configs = [config for file in files if (config := _toml(file)) is not None]
    if configs:
        return _Configuration("CRI-O", _CRIO_CONFIGURATION, crio_facts(*configs))
    return None


def _toml(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            return tomllib.loads(file.read(_MAX_SIZE).decode())
    except (OSError, ValueError):  # ValueError: not TOML, or not UTF-8
        return None


def _matching(root: Path, pattern: str) -> list[Path]:
    """Return the imported files; rare patterns that are not absolute paths are left out."""
    if not pattern.startswith("/"):
        return []
    return sorted(root.glob(pattern.lstrip("/")))[:_MAX_IMPORTS]


_WRITE: Final = "start the daemon with --cdi-feature; in a container: mount that directory"
_REMOVE_OTHER: Final = f"remove the other file: the daemon keeps {CDI_FILE} up to date"


def check_cdi_file(settings: Settings) -> Iterator[Check]:
    """Yield rows of the findings of `cdi check`."""
    path = settings.cdi_dir / CDI_FILE
    if not settings.cdi_feature:
        beside = f"; {path} exists anyway" if path.exists() else ""
        yield ok("CDI file", f"not needed without --cdi-feature{beside}")
        return
    needed, findings = check_node(settings)
    for each in findings:
        otherwise = _REMOVE_OTHER if os.path.lexists(path) else _WRITE
        yield failure("CDI file", each.text, each.cure or otherwise)
    if not findings:
        yield ok("CDI file", f"{path} has what the node needs" if needed else "no card, no file")
