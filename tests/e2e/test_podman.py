"""Real containers start from the written file, with the right devices and mounts.

podman resolves CDI names itself. It runs in a mount namespace in which the recorded host's nodes and
files lie over this machine's, so that nothing of this machine is touched, and CDI's paths are true.
Needs root, podman, runc and a static busybox; REQUIRE_TOOLS=1 makes their absence a failure.
"""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

import attrs
import pytest

from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.conftest import GPU, QUARTER
from tests.e2e.daemon import COMMAND, DaemonProcess
from tests.kubelet.client import KubeletProcess
from tests.support.recorded import HOSTS, copy_host

TIMEOUT: Final = 60.0
TREE: Final = "/usr/local/birensupa/driver"
_BUSYBOX: Final = Path("/usr/bin/busybox"), Path("/bin/busybox")
_MAJOR: Final = 195
"""Of the nodes: no runtime allows it by itself, and no driver answers to it here."""
_CONTROL_MINOR: Final = 255
_LAYERS: Final = """\
set -e
mount -t tmpfs tmpfs {work}
for name in etc dev usr; do
  mkdir -p {work}/$name {work}/$name.work
  mount -t overlay overlay -o lowerdir={over}/$name:/$name,upperdir={work}/$name,workdir={work}/$name.work /$name
done
echo ready
exec sleep infinity
"""
_LOOK: Final = """\
/bin/busybox --install -s /bin
cd /dev; find . -type c | grep -E 'biren|vfio' | while read node; do
  # Whoever may open it is told by its driver that there is none.
  (: < $node) 2>&1 | grep -q 'No such device or address' && may_read=yes || may_read=no
  (: > $node) 2>&1 | grep -q 'No such device or address' && may_write=yes || may_write=no
  echo node $node $(stat -c '%t %T' $node) $may_read $may_write
done
grep -E ' /opt/birentech| /usr/local' /proc/mounts | while read _ path _ options _; do
  echo mount $path ${options%%,*} $(test -r $path && echo there)
done
(: > /usr/local/birensupa/driver/new) 2>&1 | grep -q 'Read-only' && echo tree read-only
echo cards $BR_PHY_CARDS
"""


@attrs.frozen
class Inside:
    """The devices, mounts and variables inside a container."""

    nodes: dict[str, int]
    """Minor number of each Biren or VFIO node, all of which it may read and write."""
    mounts: set[str]
    """The driver's files and folders, all of them there and read-only."""
    read_only_tree: bool
    cards: str
    """BR_PHY_CARDS."""


class Machine:
    """A machine with the nodes and files of the host in `root`, and podman on it."""

    def __init__(self, folder: Path, root: Path, podman: Path, busybox: Path) -> None:
        self._podman = podman
        self._root = root
        over, work = folder / "over", folder / "work"
        for name in ("etc", "dev/biren", "dev/vfio", "usr"):
            (over / name).mkdir(parents=True)
        work.mkdir()
        for node in [*root.glob("dev/biren/card_*"), *root.glob("dev/vfio/[0-9]*")]:
            _make_node(over / node.relative_to(root), int(node.name.removeprefix("card_")))
        for name in ("biren-m", "vfio/vfio"):
            _make_node(over / "dev" / name, _CONTROL_MINOR)
        if (root / "usr").exists():
            shutil.copytree(root / "usr", over / "usr", symlinks=True, dirs_exist_ok=True)
        self._storage = work / "storage"
        self._rootfs = folder / "rootfs"
        for name in ("bin", "dev", "proc", "sys", "etc"):
            (self._rootfs / name).mkdir(parents=True)
        shutil.copy(busybox, self._rootfs / "bin/busybox")
        (self._rootfs / "bin/sh").symlink_to("busybox")
        self._keeper = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _LAYERS.format(work=work, over=over)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == "ready\n"

    def close(self) -> None:
        """Remove the machine, with all its mounts."""
        self._keeper.kill()
        self._keeper.communicate()

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """A command on the machine."""
        return subprocess.run(
            ["nsenter", f"--mount=/proc/{self._keeper.pid}/ns/mnt", *words],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )

    def generate(self, *flags: str) -> None:
        """`cdi generate` into the machine's own /etc/cdi."""
        root = f"--host-root={self._root}"
        result = self.run(*COMMAND, "cdi", "generate", root, "--overwrite", *flags)
        assert result.returncode == 0, result.stderr

    def start(self, *names: str, env: str = "") -> "subprocess.CompletedProcess[str]":
        """A container with these CDI devices, which says what it finds in itself."""
        return self.run(
            str(self._podman), f"--root={self._storage}/root", f"--runroot={self._storage}/run",
            "--runtime=runc", "--cgroup-manager=cgroupfs", "run", "--rm", "--network=host",
            "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", f"--env=BR_PHY_CARDS={env}",
            *(f"--device={name}" for name in names), "--rootfs", str(self._rootfs),
            "/bin/sh", "-c", _LOOK,
        )  # fmt: skip

    def look_inside(self, *names: str, env: str = "") -> Inside:
        """What such a container, which must start, finds in itself."""
        result = self.start(*names, env=env)
        assert result.returncode == 0, result.stderr
        lines = [line.partition(" ")[::2] for line in result.stdout.splitlines()]
        nodes = [words.split() for kind, words in lines if kind == "node"]
        assert all(each[1:2] + each[3:] == [f"{_MAJOR:x}", "yes", "yes"] for each in nodes)
        mounts = [words.split() for kind, words in lines if kind == "mount"]
        assert all(each[1:] == ["ro", "there"] for each in mounts)
        return Inside(
            nodes={f"/dev/{each[0][2:]}": int(each[2], 16) for each in nodes},
            mounts={each[0] for each in mounts},
            read_only_tree=("tree", "read-only") in lines,
            cards=dict(lines)["cards"],
        )


def _make_node(path: Path, minor: int) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(_MAJOR, minor))
    path.chmod(0o666)


def cannot_run(reason: str) -> NoReturn:
    if os.environ.get("REQUIRE_TOOLS") == "1":
        pytest.fail(f"REQUIRE_TOOLS=1, but {reason}")
    pytest.skip(reason)


@pytest.fixture
def tools() -> tuple[Path, Path]:
    """What this machine has of them: podman, a busybox."""
    if os.geteuid() != 0:
        cannot_run("containers with devices need root")
    missing = [name for name in ("podman", "runc", "unshare") if shutil.which(name) is None]
    busybox = next((path for path in _BUSYBOX if path.exists()), None)
    if missing or busybox is None:
        missing += [] if busybox else ["busybox"]
        cannot_run(f"apt-get install podman runc busybox-static: no {', '.join(missing)}")
    podman = shutil.which("podman")
    assert podman is not None
    return Path(podman), busybox


@pytest.fixture
def host(folder: Path) -> SimulatedHost:
    """A host with cards of each kind, whose nodes are those of the machine."""
    host = SimulatedHost(folder / "host")
    host.add_gpus({0: 1, 1: 1, 2: 2, 3: 4})
    return host


@pytest.fixture
def machine(folder: Path, host: SimulatedHost, tools: tuple[Path, Path]) -> Iterator[Machine]:
    """The machine of that host."""
    machine = Machine(folder, host.root, *tools)
    yield machine
    machine.close()


NAME = "birentech.com/gpu=card_{}"


@pytest.mark.parametrize("number", [0, 3, 7], ids=["whole", "half", "quarter"])
def test_container_gets_its_card_and_the_control_node(machine: Machine, number: int) -> None:
    machine.generate()
    inside = machine.look_inside(NAME.format(number))
    assert inside.nodes == {f"/dev/biren/card_{number}": number, "/dev/biren-m": _CONTROL_MINOR}
    assert not inside.mounts


def test_container_gets_all_of_its_cards_and_no_others(machine: Machine) -> None:
    machine.generate()
    inside = machine.look_inside(NAME.format(1), NAME.format(0))
    assert inside.nodes == {
        "/dev/biren/card_0": 0,
        "/dev/biren/card_1": 1,
        "/dev/biren-m": _CONTROL_MINOR,
    }


def test_drivers_files_are_there_and_cannot_be_written(machine: Machine) -> None:
    machine.generate("--mount-host-path")
    inside = machine.look_inside(NAME.format(0))
    assert inside.mounts == {
        "/opt/birentech/lib/libbiren-ml.so",
        "/opt/birentech/lib/libbiren-ml.so.1",
        "/opt/birentech/lib/libbiren-ml.so.1.12.0",
        "/opt/birentech/bin/brsmi",
        TREE,
    }
    assert inside.read_only_tree


def test_container_without_a_name_gets_nothing(machine: Machine) -> None:
    machine.generate("--mount-host-path")
    inside = machine.look_inside()
    assert not inside.nodes
    assert not inside.mounts


def test_name_that_the_file_lacks_starts_no_container(machine: Machine) -> None:
    machine.generate()
    result = machine.start(NAME.format(77))
    assert result.returncode != 0
    assert "card_77" in result.stderr


@pytest.mark.parametrize("name", ["eight_whole", "mixed", "unsettled", "broken"])
def test_each_recorded_host_starts_containers(
    folder: Path, tools: tuple[Path, Path], name: str
) -> None:
    root = copy_host(name, folder / "host")
    machine = Machine(folder, root, *tools)
    try:
        machine.generate("--mount-host-path")
        number = 3 if name == "broken" else 0
        inside = machine.look_inside(NAME.format(number))
        assert inside.nodes[f"/dev/biren/card_{number}"] == number
    finally:
        machine.close()


def test_pod_of_the_daemon_gets_what_the_kubelet_hands_on(
    machine: Machine, folder: Path, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    """The answer to `Allocate` given to podman as the kubelet gives it to a runtime."""
    cdi_dir = folder / "cdi"
    daemon.start("--cdi-feature", f"--cdi-dir={cdi_dir}", "--mount-host-path")
    for resource, count, cards in ((GPU, 2, [0, 1]), (QUARTER, 1, [4])):
        kubelet.wait_for_list(resource)
        machine.run("mkdir", "-p", "/etc/cdi")
        machine.run("cp", str(cdi_dir / "biren.yaml"), "/etc/cdi")
        response = kubelet.admit(resource, count)["response"]
        names = [device["name"] for device in response["cdi_devices"]]
        inside = machine.look_inside(*names, env=response["envs"]["BR_PHY_CARDS"])
        assert inside.cards == ",".join(f"card_{number}" for number in cards)
        expected = {f"/dev/biren/card_{number}": number for number in cards}
        assert inside.nodes == expected | {"/dev/biren-m": _CONTROL_MINOR}
        assert inside.read_only_tree


def test_recorded_kata_host_starts_containers(folder: Path, tools: tuple[Path, Path]) -> None:
    root = copy_host("sriov_mixed", folder / "host")
    machine = Machine(folder, root, *tools)
    try:
        machine.generate("--container-runtime=kata")
        inside = machine.look_inside(*(f"birentech.com/gpu=vfio-{number}" for number in (50, 51)))
        groups = {"/dev/vfio/50": 50, "/dev/vfio/51": 51}
        assert inside.nodes == groups | {"/dev/vfio/vfio": _CONTROL_MINOR}
    finally:
        machine.close()


def test_recorded_hosts_are_all_tried() -> None:
    tried = {"eight_whole", "mixed", "unsettled", "broken"}
    with_cards = {path.name for path in HOSTS.iterdir() if (path / "sys/class/biren").exists()}
    assert tried == with_cards
