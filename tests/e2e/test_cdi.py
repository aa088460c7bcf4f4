"""With --cdi-feature pods get names, and never one that the node's CDI file lacks.

The test kubelet resolves no names; `tests.support.cdi_resolver` does, as a runtime would.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from biren_plugin.files.cdi_file import load
from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.conftest import GPU, HALF, QUARTER
from tests.e2e.daemon import DaemonProcess, run_command
from tests.kubelet.client import Event, KubeletProcess
from tests.support.cdi_resolver import resolve, validate
from tests.support.recorded import copy_host

VENDORS = """\
cdiVersion: 0.5.0
kind: birentech.com/gpu
devices:
- name: card_0
  containerEdits:
    deviceNodes:
    - path: /dev/biren/card_0
---
cdiVersion: 0.5.0
kind: birentech.com/1-2-gpu
devices: []
"""


@pytest.fixture
def file(folder: Path) -> Path:
    """The path of the daemon's CDI file."""
    return folder / "cdi/biren.yaml"


@pytest.fixture
def daemon(daemon: DaemonProcess, file: Path) -> DaemonProcess:
    """The daemon with that directory; the test decides whether it writes."""
    daemon.flags += (f"--cdi-dir={file.parent}",)
    return daemon


@pytest.fixture
def vendors(file: Path) -> Path:
    """An existing file with only card_0."""
    file.parent.mkdir()
    file.write_text(VENDORS)
    return file


def spec_in(file: Path) -> dict[str, Any]:
    """Return the spec that the daemon wrote, after a check against its schema."""
    spec = load(file)
    assert spec is not None
    validate(spec)
    return spec


def names_in(file: Path) -> list[str]:
    return [device["name"] for device in spec_in(file)["devices"]]


def named(response: Event) -> list[str]:
    """Return the names in one container's response, which has nothing else but the variable."""
    assert not response["devices"]
    assert not response["mounts"]
    names = [device["name"] for device in response["cdi_devices"]]
    assert all(name.startswith("birentech.com/gpu=") for name in names)
    cards = [name.partition("=")[2] for name in names]
    assert response["envs"] == {"BR_PHY_CARDS": ",".join(cards)}
    return names


def test_a_missing_file_is_written_before_its_devices_are_listed(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess, file: Path
) -> None:
    host.add_gpus({0: 1, 1: 1, 2: 2})
    daemon.start("--cdi-feature", "--mount-host-path")
    kubelet.wait_for_list(GPU, healthy=2)
    kubelet.wait_for_list(HALF, healthy=2)
    assert file.stat().st_mode & 0o777 == 0o644
    resolved = resolve(spec_in(file), named(kubelet.admit(GPU, 2)["response"]))
    paths = ("/dev/biren/card_0", "/dev/biren/card_1", "/dev/biren-m")
    assert resolved.nodes == {(path, "rw") for path in paths}
    tree = "/usr/local/birensupa/driver"
    assert (tree, tree) in resolved.mounts
    assert len(resolved.mounts) == 5
    (half,) = kubelet.allocate(HALF, ["card_3"])["responses"]
    assert named(half) == ["birentech.com/gpu=card_3"]
    assert str(host.root) not in file.read_text()


def test_the_answer_is_the_same_as_without_cdi(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess, file: Path
) -> None:
    host.add_gpus({0: 1, 1: 1})
    daemon.start("--mount-host-path")
    kubelet.wait_for_list(GPU, healthy=2)
    (direct,) = kubelet.allocate(GPU, ["card_1", "card_0"])["responses"]
    assert not file.exists()
    assert daemon.end() == 0
    mark = kubelet.mark()
    daemon.start("--mount-host-path", "--cdi-feature")
    kubelet.wait_for_list(GPU, healthy=2, since=mark)
    (response,) = kubelet.allocate(GPU, ["card_1", "card_0"])["responses"]
    resolved = resolve(spec_in(file), named(response))
    assert resolved.nodes == {(each["host_path"], "rw") for each in direct["devices"]}
    assert resolved.mounts == {
        (each["host_path"], each["container_path"]) for each in direct["mounts"]
    }
    assert response["envs"] == direct["envs"]


def test_an_existing_file_is_kept_and_its_missing_devices_are_unhealthy(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess, vendors: Path
) -> None:
    host.add_gpus({0: 1, 1: 1})
    daemon.start("--cdi-feature")
    kubelet.wait_for_list(GPU, healthy=["card_0"], unhealthy=["card_1"])
    line = daemon.wait_for_line("WARNING .*left as it is")
    assert "--overwrite-cdi-config" in line
    assert "it lacks card_1" in line
    (response,) = kubelet.allocate(GPU, ["card_0"])["responses"]
    assert named(response) == ["birentech.com/gpu=card_0"]
    refused = kubelet.allocate(GPU, ["card_1"])
    assert refused["code"] == "FAILED_PRECONDITION"
    assert "stale, it lacks card_1; correct it" in refused["details"]
    assert daemon.end() == 0
    assert vendors.read_text() == VENDORS
    assert len(daemon.matching("WARNING .*left as it is.*it lacks")) == 1


def test_overwrite_replaces_an_existing_file(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess, vendors: Path
) -> None:
    host.add_gpus({0: 1, 1: 1})
    daemon.start("--cdi-feature", "--overwrite-cdi-config")
    kubelet.wait_for_list(GPU, healthy=["card_0", "card_1"])
    assert names_in(vendors) == ["card_0", "card_1"]


def test_a_new_split_is_in_the_file_before_it_is_listed(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess, file: Path
) -> None:
    host.add_gpus({0: 1, 1: 1})
    daemon.start("--cdi-feature")
    kubelet.wait_for_list(GPU, healthy=2)
    halves = host.split(1, 2)
    kubelet.wait_for_list(HALF, healthy=halves)
    (response,) = kubelet.allocate(HALF, halves)["responses"]
    assert resolve(spec_in(file), named(response)).nodes == {
        *((f"/dev/biren/{name}", "rw") for name in halves),
        ("/dev/biren-m", "rw"),
    }
    kubelet.wait_for_list(GPU, healthy=["card_0"], unhealthy=[])
    check = ("cdi", "check", f"--host-root={host.root}", f"--cdi-dir={file.parent}")
    assert run_command(*check).returncode == 0


def test_a_new_split_is_unhealthy_if_the_file_may_not_be_written(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess, vendors: Path
) -> None:
    host.add_gpus({0: 1})
    daemon.start("--cdi-feature")
    kubelet.wait_for_list(GPU, healthy=["card_0"])
    host.add_gpus({1: 2})
    kubelet.wait_for_list(HALF, healthy=[], unhealthy=["card_1", "card_2"])
    daemon.wait_for_line("it lacks card_1, card_2: Unhealthy until it has them")
    assert vendors.read_text() == VENDORS


def test_vfio_groups_have_names_that_runtimes_accept(
    folder: Path, kubelet: KubeletProcess, daemon: DaemonProcess, file: Path
) -> None:
    root = copy_host("sriov_mixed", folder / "host")
    daemon.start("--cdi-feature", "--container-runtime=kata")
    for resource, numbers in ((GPU, [17]), (HALF, [40]), (QUARTER, [50, 51])):
        kubelet.wait_for_list(resource, healthy=len(numbers))
        paths = [f"/dev/vfio/{number}" for number in numbers]
        (response,) = kubelet.allocate(resource, paths)["responses"]
        assert response["envs"] == {"BR_PHY_CARDS": ",".join(paths)}
        names = [device["name"] for device in response["cdi_devices"]]
        assert names == [f"birentech.com/gpu=vfio-{number}" for number in numbers]
        assert resolve(spec_in(file), names).nodes == {
            *((path, "rw") for path in paths),
            ("/dev/vfio/vfio", "rw"),
        }
    flags = (f"--host-root={root}", f"--cdi-dir={file.parent}")
    check = run_command("cdi", "check", "--container-runtime=kata", *flags)
    assert check.returncode == 0, check.stdout


@pytest.fixture
def small_disk(file: Path) -> Iterator[Path]:
    """Mount a file system of 16 KiB on the CDI directory."""
    file.parent.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(file.parent)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs root")
    yield file.parent
    subprocess.run(["umount", str(file.parent)], check=True)


def test_a_full_disk_affects_only_cards_not_yet_written(
    host: SimulatedHost,
    kubelet: KubeletProcess,
    daemon: DaemonProcess,
    small_disk: Path,
    file: Path,
) -> None:
    host.add_gpus({0: 1})
    daemon.start("--cdi-feature")
    kubelet.wait_for_list(GPU, healthy=["card_0"])
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk)
    ballast.write_bytes(bytes(free.f_bavail * free.f_frsize))
    host.add_gpus({1: 1})
    kubelet.wait_for_list(GPU, healthy=["card_0"], unhealthy=["card_1"])
    daemon.wait_for_line("No space left on device; make room .*; it lacks card_1")
    assert names_in(file) == ["card_0"]
    ballast.unlink()
    kubelet.wait_for_list(GPU, healthy=["card_0", "card_1"])
    assert names_in(file) == ["card_0", "card_1"]
    daemon.wait_for_line("serves every device again")


def test_a_standby_instance_writes_nothing(
    host: SimulatedHost,
    kubelet: KubeletProcess,
    daemon: DaemonProcess,
    new_daemon: Callable[[], DaemonProcess],
    file: Path,
) -> None:
    host.add_gpus({0: 1})
    daemon.start("--cdi-feature")
    kubelet.wait_for_list(GPU, healthy=1)
    before = file.stat().st_mtime_ns
    second = new_daemon()
    second.start("--cdi-feature", f"--cdi-dir={file.parent}", "--overwrite-cdi-config")
    second.wait_for_line("standing by")
    assert file.stat().st_mtime_ns == before
    mark = kubelet.mark()
    assert daemon.end() == 0
    kubelet.wait_for_list(GPU, healthy=1, since=mark)
    assert file.stat().st_mtime_ns == before, "a file that says the same is not written again"
    host.add_gpus({1: 1})
    kubelet.wait_for_list(GPU, healthy=2)
    assert names_in(file) == ["card_0", "card_1"], "it has taken over, the file too"
