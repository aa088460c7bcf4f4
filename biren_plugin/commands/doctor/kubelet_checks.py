"""The kubelet: its sockets, other plugins, its version and feature gate.

Source of the gate: the table of feature gates in the Kubernetes documentation (`DevicePluginCDIDevices`).
"""

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import trio

# Imported here, and not where it is needed: checks run in threads, and two threads that import this
# package first, which has circular imports, would get a deadlock error.
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from biren_plugin.commands.doctor import in_pod
from biren_plugin.commands.doctor.diagnosis import AS_ROOT, Check, failure, ok, unknown, warning
from biren_plugin.commands.doctor.directory_checks import kubelet_directory
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.vendor import version_numbers
from biren_plugin.core.settings import Settings
from biren_plugin.device_plugin.kubelet_folder import (
    KUBELET_SOCKET,
    KubeletFolder,
    read_kubelet_folder,
)
from biren_plugin.errors import NoThread
from biren_plugin.wire.server_check import why_silent
from biren_plugin.worker_thread import WorkerThread

CDI_GATE: Final = "DevicePluginCDIDevices"
LEAST_KUBELET: Final = (1, 13)
_LEAST_CDI_KUBELET: Final = (1, 28)
_CDI_BY_DEFAULT: Final = (1, 29)
_ANSWER_DEADLINE: Final = 2.0
_FORBIDDEN: Final = "this user may not connect"
_DELETED: Final = "the socket was deleted: only a restart of the kubelet creates it again"


def check_kubelet(settings: Settings) -> Iterator[Check]:
    """Yield rows of the kubelet's sockets and of the other plugins."""
    path = settings.device_plugin_dir
    folder = read_kubelet_folder(path)
    yield kubelet_directory(path, folder)
    sockets = path / KUBELET_SOCKET, settings.pod_resources_dir / KUBELET_SOCKET
    silent = trio.run(_silent, [*sockets, *(path / name for name in folder.ours)])
    registering, pods = (each not in silent for each in sockets)
    if folder.exists:
        yield _socket(sockets[0], silent, there=folder.kubelet is not None, kubelet_runs=pods)
        if ours := sorted(folder.ours):
            yield _our_sockets(ours, {each.name: why for each, why in silent.items()})
        yield _other_plugins(folder)
    if pods:
        yield ok("pod resources", f"{sockets[1]} answers")
    elif silent[sockets[1]] == _FORBIDDEN:
        yield unknown("pod resources", f"{sockets[1]}: {_FORBIDDEN}", AS_ROOT)
    elif registering and sockets[1].parent.is_dir() and not sockets[1].exists():
        seen = f"there is no {sockets[1]}, though the kubelet runs"
        yield warning("pod resources", seen, f"which pod holds a card cannot be known; {_DELETED}")
    else:
        yield warning(
            "pod resources",
            f"{sockets[1]} does not answer: {silent[sockets[1]]}",
            "which pod holds a card cannot be known; in a container: is it mounted?",
        )


async def _silent(sockets: Iterable[Path]) -> dict[Path, str]:
    """Return the reason for each socket without an answer."""
    silent: dict[Path, str] = {}

    async def ask(path: Path) -> None:
        try:
            why = await why_silent(path, _ANSWER_DEADLINE, WorkerThread())
        except PermissionError:
            why = _FORBIDDEN
        except NoThread as error:
            why = str(error)
        if why:
            silent[path] = why

    async with trio.open_nursery() as nursery:
        for path in sockets:
            nursery.start_soon(ask, path)
    return silent


def _socket(path: Path, silent: Mapping[Path, str], *, there: bool, kubelet_runs: bool) -> Check:
    if not there and kubelet_runs:
        seen = f"there is no {path}, though the kubelet runs"
        return failure("kubelet's socket", seen, f"no plugin can register; {_DELETED}")
    if not there:
        return failure("kubelet's socket", f"there is no {path}", "is the kubelet running?")
    if silent.get(path) == _FORBIDDEN:
        return unknown("kubelet's socket", f"{path}: {_FORBIDDEN}", AS_ROOT)
    if path in silent:
        return failure(
            "kubelet's socket",
            f"{path} does not answer: {silent[path]}",
            "is the kubelet running? a stopped one leaves its socket behind",
        )
    return ok("kubelet's socket", f"{path} answers")


def _our_sockets(ours: Sequence[str], silent: Mapping[str, str]) -> Check:
    name = "plugin's sockets"
    dead = [f"{each}: {silent[each]}" for each in ours if each in silent]
    if not dead:
        return ok(name, f"{', '.join(ours)} {'answers' if len(ours) == 1 else 'answer'}")
    if all(silent.get(each) == _FORBIDDEN for each in ours):
        return unknown(name, "; ".join(dead), AS_ROOT)
    return failure(
        name, "; ".join(dead), "the daemon was killed, or hangs: see its log, and restart its pod"
    )


def _other_plugins(folder: KubeletFolder) -> Check:
    name = "other plugins"
    seen = ", ".join(sorted(folder.foreign)) or "none"
    if any(vendor.MODULE in each.lower() for each in folder.foreign):
        advice = "of two plugins for one resource, the later one gets its pods: remove the other's DaemonSet"
        return failure(name, seen, advice)
    if folder.foreign:
        seen += "; the row daemon shows whether one of them takes a resource of this plugin"
    return ok(name, seen)


def check_kubelet_version(settings: Settings) -> Iterator[Check]:
    """Yield rows of the kubelet's version and, with CDI, of its feature gate."""
    text = program_version("kubelet", settings.host_root)
    version = version_numbers(text) if text is not None else None
    if version is None:
        seen = "no kubelet binary visible from here"
        yield unknown("kubelet's version", seen, "see `kubectl get nodes -o wide`")
    elif version < LEAST_KUBELET:
        least = ".".join(map(str, LEAST_KUBELET))
        yield failure("kubelet's version", f"{text}", f"upgrade to {least} or newer")
    else:
        yield ok("kubelet's version", f"{text}")
    if not settings.cdi_feature:
        yield ok("kubelet's CDI gate", "not needed without --cdi-feature")
        return
    gate = _gate(settings.device_plugin_dir.parent / "config.yaml")
    seen = f"{CDI_GATE} is " + ("not set" if gate is None else f"{gate}".lower())
    match kubelet_passes_cdi(version, gate):
        case None:
            yield unknown("kubelet's CDI gate", seen, "it is on by default from 1.29 on")
        case True:
            yield ok("kubelet's CDI gate", seen)
        case False:
            yield failure(
                "kubelet's CDI gate",
                seen,
                f"containers get no CDI devices: set the gate {CDI_GATE}, from 1.28 on, or leave out "
                "--cdi-feature",
            )


def _gate(path: Path) -> bool | None:
    """Return the gate in the kubelet's configuration; None if it is not set, or cannot be read."""
    try:
        config = YAML(typ="safe", pure=True).load(path)
    except (OSError, YAMLError):
        return None
    gates = config.get("featureGates") if isinstance(config, dict) else None
    gate = gates.get(CDI_GATE) if isinstance(gates, dict) else None
    return gate if isinstance(gate, bool) else None


def program_version(program: str, root: Path) -> str | None:
    """Return `1.29.3`, printed by a program of this host; None in a container, which cannot run it."""
    path = shutil.which(program) if root == Path("/") and not in_pod() else None
    if path is None:
        return None
    try:
        result = subprocess.run(  # noqa: S603 - a program of the node, found where root finds it
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=_ANSWER_DEADLINE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\bv?([0-9]+\.[0-9]+\.[0-9]+)", result.stdout)
    return match[1] if match else None


def kubelet_passes_cdi(version: tuple[int, ...] | None, gate: bool | None) -> bool | None:
    """Return whether the kubelet passes CDI names on; None: unknown. `gate` is None if it is not configured."""
    if gate is False:
        return False
    if version is None:
        return gate
    return version >= _CDI_BY_DEFAULT or (bool(gate) and version >= _LEAST_CDI_KUBELET)
