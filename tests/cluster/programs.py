"""Finds the node's programs in directories or archives that the caller names, or in PATH."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

KUBERNETES_VARIABLE: Final = "KUBERNETES_BINARIES"
"""A directory with Kubernetes' server programs, as a release's server archive unpacks."""
NODE_VARIABLE: Final = "NODE_BINARIES"
"""Directories and tar archives with etcd and containerd's programs, separated by colons."""
HAMI_VARIABLE: Final = "HAMI_SCHEDULER"
"""The program of a HAMi scheduler, 2.10 or newer; without it the tests use a stand-in."""
STATE_VARIABLE: Final = "CLUSTER_STATE"
"""The node's own directory: set by `python -m tests.cluster` inside its namespaces."""

KUBERNETES: Final = ("kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
CONTAINERD: Final = ("containerd", "containerd-shim-runc-v2", "ctr", "runc")
TOOLS: Final = ("ip", "mount", "openssl", "setpriv", "unshare")
_CNI: Final = Path("/usr/lib/cni/ptp"), Path("/opt/cni/bin/ptp")
_BUSYBOX: Final = Path("/usr/bin/busybox"), Path("/bin/busybox")
_UNPACKED: Final = Path(__file__).parents[2] / ".nox" / "cluster-tools"


class UnusablePrograms(Exception):
    """A directory or an archive that the caller named cannot be used; the text says what to change."""


def search_path() -> str:
    """PATH with the caller's directories and unpacked archives in front. Raises UnusablePrograms."""
    named = [
        each for each in (os.environ.get(KUBERNETES_VARIABLE, ""), os.environ.get(NODE_VARIABLE, ""))
        if each
    ]  # fmt: skip
    places = [_unpacked(Path(place)) for each in named for place in each.split(os.pathsep) if place]
    return os.pathsep.join([*map(str, places), os.environ.get("PATH", os.defpath)])


def missing_for_containerd() -> str | None:
    """One line on what to install or set before containerd can run here, or None."""
    if lacking := _lacking(*CONTAINERD, *TOOLS):
        return (
            f"no {', '.join(lacking)} here: set {NODE_VARIABLE} to a directory or an archive"
            " that holds containerd's release and etcd"
        )
    return None if busybox() else "no busybox here: install busybox-static"


def check_kubernetes() -> None:
    """Raises UnusablePrograms if programs that the caller named do not exist or do not run here."""
    if not (place := os.environ.get(KUBERNETES_VARIABLE)):
        return
    for name in KUBERNETES:
        found = shutil.which(name)
        if found is None:
            raise UnusablePrograms(f"no executable {name} in {place}")
        try:
            done = subprocess.run(
                [found, "--version"], capture_output=True, timeout=30, check=False
            )
        except OSError as error:
            raise UnusablePrograms(f"{found} does not run here: {error.strerror}") from error
        if done.returncode:
            raise UnusablePrograms(f"{found} --version ends with status {done.returncode}")


def missing_for_kubernetes() -> str | None:
    """One line on what to install or set before a cluster can run here, or None."""
    if lacking := _lacking(*KUBERNETES):
        return (
            f"no {', '.join(lacking)} here: set {KUBERNETES_VARIABLE} to a directory with"
            " the programs of a Kubernetes release's server archive"
        )
    if _lacking("etcd"):
        return f"no etcd here: set {NODE_VARIABLE} to a directory or an archive that holds it"
    return (
        None if cni_directory() else "no CNI plugin ptp here: install containernetworking-plugins"
    )


def busybox() -> Path | None:
    """A busybox, which must be static, for the pods' image."""
    return next(filter(Path.exists, _BUSYBOX), None)


def cni_directory() -> Path | None:
    """The directory of CNI plugins."""
    found = next(filter(Path.exists, _CNI), None)
    return found.parent if found else None


def _lacking(*names: str) -> list[str]:
    path = os.environ.get("PATH", os.defpath)
    return [name for name in names if shutil.which(name, path=path) is None]


def _unpacked(place: Path) -> Path:
    """`place`, or the directory into which the archive `place` was unpacked once."""
    if place.is_dir():
        return place.absolute()
    if not place.exists():
        raise UnusablePrograms(f"{place} does not exist")
    target = _UNPACKED / f"{place.name}.{place.stat().st_mtime_ns:x}"
    if not target.exists():
        unfinished = target.with_suffix(".unfinished")
        unfinished.mkdir(parents=True, exist_ok=True)
        unpack = ["tar", "-xf", str(place), "-C", str(unfinished)]
        done = subprocess.run(unpack, capture_output=True, text=True, check=False)
        if done.returncode:
            why = done.stderr.strip().splitlines()[:1]
            raise UnusablePrograms(f"{place} cannot be unpacked: {' '.join(why)}")
        unfinished.rename(target)
    return target
