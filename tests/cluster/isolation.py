"""The first process of the node's namespaces: it makes the machine's directories private and runs a command.

Files written below /etc, /var, /dev and /run stay in the node's state, a tmpfs that ends with the namespace.
The node has a network of its own, and a cgroup of its own in each hierarchy, since two kubelets in one
cgroup end each other's pods.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.cluster.programs import STATE_VARIABLE

NODE_NAME: Final = "node"
NODE_ADDRESS: Final = "10.88.8.1"
SERVICE_ADDRESS: Final = "10.96.0.1"
"""The API server's address for pods; the node itself has this address, so that no proxy is needed."""
CGROUP_VARIABLE: Final = "CLUSTER_CGROUP"
_OVERLAID: Final = ("etc", "var", "dev")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_MOUNTED: Final = ("/var/lib/kubelet", "/var/log")


def main() -> int:
    """The command's exit status; every other process of the namespace ends with this one."""
    state, cgroup, *command = sys.argv[1:]
    _make_directories_private(Path(state))
    _make_network()
    _make_cgroup(cgroup)
    os.environ |= {STATE_VARIABLE: state, CGROUP_VARIABLE: f"/{cgroup}"}
    return subprocess.run(command, check=False).returncode


def _make_directories_private(state: Path) -> None:
    _run("mount", "-t", "tmpfs", "-o", "mode=0755", "node", str(state))
    for name in _OVERLAID:
        upper, work = state / "over" / name, state / "over" / f"{name}.work"
        upper.mkdir(parents=True)
        work.mkdir()
        layers = f"lowerdir=/{name},upperdir={upper},workdir={work}"
        _run("mount", "-t", "overlay", "node", "-o", layers, f"/{name}")
    _run("mount", "-t", "tmpfs", "-o", "mode=0755", "node", "/run")
    for path in ("/dev/shm", *_MOUNTED):
        Path(path).mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", "mode=0755", "node", path)
    _run("mount", "--make-rshared", "/var/lib/kubelet")  # as volumes of pods want it
    for path in ("/etc/cdi", "/etc/cni/net.d", "/run/cdi", "/dev/biren"):
        Path(path).mkdir(parents=True, exist_ok=True)


def _make_network() -> None:
    for words in (
        "link set lo up",
        f"addr add {SERVICE_ADDRESS}/32 dev lo",
        "link add node0 type veth peer name node1",
        f"addr add {NODE_ADDRESS}/24 dev node0",
        "link set node0 up",
        "link set node1 up",
        "route add default dev node0",
    ):
        _run("ip", *words.split())
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _make_cgroup(name: str) -> None:
    unified = (_CGROUPS / "cgroup.controllers").exists()
    for top in [_CGROUPS] if unified else _CGROUPS.iterdir():
        if not top.is_dir() or top.is_symlink():
            continue
        (top / name).mkdir()
        if unified:
            controllers = (top / "cgroup.controllers").read_text().split()
            for directory in (top, top / name):
                text = " ".join(f"+{each}" for each in controllers)
                (directory / "cgroup.subtree_control").write_text(text)
        elif top.name == "cpuset":
            for file in ("cpuset.cpus", "cpuset.mems"):
                (top / name / file).write_text((top / file).read_text())


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main())
