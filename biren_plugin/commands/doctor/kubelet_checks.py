"""The kubelet: its folder and sockets, who else uses them, its version and gate."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# Here, and not where it is needed: checks run in threads, and two that are first to import this
# package, which imports itself in a circle, are told of a deadlock.
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from biren_plugin.commands.doctor import in_pod
from biren_plugin.commands.doctor.container_runtime import (
    CDI_GATE,
    LEAST_KUBELET,
    kubelet_passes_cdi,
)
from biren_plugin.commands.doctor.diagnosis import Check, failure, ok, unknown, warning
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.versions import version_numbers
from biren_plugin.core.settings import Settings
from biren_plugin.device_plugin.folder import KUBELET_SOCKET, KubeletFolder, read_kubelet_folder

_ANSWER_DEADLINE: Final = 2.0
_DELETED: Final = "the socket was deleted: only a restart of the kubelet creates it again"


def check_kubelet(settings: Settings) -> Iterator[Check]:
    """Rows of the kubelet's sockets and of the other plugins beside it."""
    path = settings.device_plugin_dir
    folder = read_kubelet_folder(path)
    mounted = "in a container: is it mounted?"
    if folder.trouble:
        yield unknown("kubelet's folder", f"{path}: {folder.trouble}", "run doctor as root")
    elif not folder.exists:
        advice = f"is the kubelet installed, and --device-plugin-dir its folder? {mounted}"
        yield failure("kubelet's folder", f"there is no {path}", advice)
    elif not os.access(path, os.W_OK):
        advice = "mount it for writing, and run as root"
        yield failure("kubelet's folder", f"nothing can be created in {path}", advice)
    else:
        yield ok("kubelet's folder", f"{path}")
    sockets = path / KUBELET_SOCKET, settings.pod_resources_dir / KUBELET_SOCKET
    registering, pods = map(answers, sockets)
    if folder.exists:
        there = folder.kubelet is not None
        yield _socket(sockets[0], there=there, answering=registering, kubelet_runs=pods)
        yield _other_plugins(folder)
    if pods:
        yield ok("pod resources", f"{sockets[1]} answers")
    elif registering and sockets[1].parent.is_dir() and not sockets[1].exists():
        seen = f"there is no {sockets[1]}, though the kubelet runs"
        yield warning("pod resources", seen, f"which pod holds a card cannot be known; {_DELETED}")
    else:
        yield warning(
            "pod resources",
            f"nobody answers on {sockets[1]}",
            f"which pod holds a card cannot be known; {mounted}",
        )


def _socket(path: Path, *, there: bool, answering: bool, kubelet_runs: bool) -> Check:
    if not there and kubelet_runs:
        seen = f"there is no {path}, though the kubelet runs"
        return failure("kubelet's socket", seen, f"no plugin can register; {_DELETED}")
    if not there:
        return failure("kubelet's socket", f"there is no {path}", "is the kubelet running?")
    if not answering:
        return failure(
            "kubelet's socket",
            f"nobody answers on {path}",
            "is the kubelet running? a stopped one leaves its socket behind",
        )
    return ok("kubelet's socket", f"{path} answers")


def _other_plugins(folder: KubeletFolder) -> Check:
    name = "other plugins"
    ours = sorted(folder.ours)
    also = f"of ours {', '.join(ours)}" if ours else "ours does not serve now"
    seen = f"{', '.join(sorted(folder.foreign)) or 'none'}; {also}"
    if any(vendor.MODULE in each.lower() for each in folder.foreign):
        advice = "of two plugins for one resource, the later one gets its pods: remove the other's DaemonSet"
        return failure(name, seen, advice)
    if folder.foreign:
        seen += "; the row daemon tells whether one of them takes a resource of ours"
    return ok(name, seen)


def answers(path: Path) -> bool:
    """Whether somebody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as ours:
        ours.settimeout(_ANSWER_DEADLINE)
        try:
            ours.connect(f"{path}")
        except OSError:
            return False
    return True


def check_kubelet_version(settings: Settings) -> Iterator[Check]:
    """Rows of the kubelet's version and, where CDI names are wanted, of its gate."""
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
    said = f"{CDI_GATE} is " + ("not set" if gate is None else f"{gate}".lower())
    match kubelet_passes_cdi(version, gate):
        case None:
            yield unknown("kubelet's CDI gate", said, "it is on by default from 1.29 on")
        case True:
            yield ok("kubelet's CDI gate", said)
        case False:
            yield failure(
                "kubelet's CDI gate",
                said,
                f"CDI names reach nobody: set the gate {CDI_GATE}, from 1.28 on, or leave out "
                "--cdi-feature",
            )


def _gate(path: Path) -> bool | None:
    """The gate in the kubelet's own configuration; None if it says nothing, or cannot be read."""
    try:
        config = YAML(typ="safe", pure=True).load(path)
    except (OSError, YAMLError):
        return None
    gates = config.get("featureGates") if isinstance(config, dict) else None
    gate = gates.get(CDI_GATE) if isinstance(gates, dict) else None
    return gate if isinstance(gate, bool) else None


def program_version(program: str, root: Path) -> str | None:
    """`1.29.3` as a program of this host says; None in a container, where the host's is not to be run."""
    path = shutil.which(program) if root == Path("/") and not in_pod() else None
    if path is None:
        return None
    try:
        said = subprocess.run(  # noqa: S603 - a program of the node, found where root finds it
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=_ANSWER_DEADLINE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\bv?([0-9]+\.[0-9]+\.[0-9]+)", said.stdout)
    return match[1] if match else None
