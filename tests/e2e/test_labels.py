"""Labels for Node Feature Discovery: written if requested, current while the node changes, removed at the end."""

from collections.abc import Callable
from pathlib import Path

import pytest

from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.conftest import GPU
from tests.e2e.daemon import DaemonProcess
from tests.kubelet.client import KubeletProcess


@pytest.fixture
def features(folder: Path) -> Path:
    path = folder / "features.d"
    path.mkdir()
    return path


def test_labels_are_on_disk_while_the_daemon_serves(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess, features: Path
) -> None:
    host.add_gpus({0: 1, 1: 2})
    daemon.start(f"--nfd-features-dir={features}")
    daemon.wait_for_line("labels for Node Feature Discovery: .*gpu.count=2")
    _, *lines = (features / "biren.features").read_text().splitlines()
    assert lines == [
        "birentech.com/gpu.count=2",
        "birentech.com/gpu.memory=65024",
        "birentech.com/gpu.product=0x0106",
        "birentech.com/gpu.split=mixed",
        "birentech.com/driver.version=1.12.0",
    ]
    host.add_gpus({2: 1})
    daemon.wait_for_line("labels for Node Feature Discovery: .*gpu.count=3")
    assert daemon.end() == 0
    assert list(features.iterdir()) == []


def test_an_instance_that_takes_over_keeps_the_labels(
    host: SimulatedHost,
    kubelet: KubeletProcess,
    new_daemon: Callable[[], DaemonProcess],
    features: Path,
) -> None:
    host.add_gpus({0: 1})
    old, new = new_daemon(), new_daemon()
    old.start(f"--nfd-features-dir={features}")
    old.wait_for_line("labels for")
    new.start(f"--nfd-features-dir={features}")
    new.wait_for_line("standing by")
    assert old.end() == 0
    new.wait_for_line("labels for")
    assert (features / "biren.features").exists()


def test_folder_that_is_missing_is_said_once_and_the_main_job_is_done(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess, folder: Path
) -> None:
    host.add_gpus({0: 1})
    daemon.start(f"--nfd-features-dir={folder / 'none'}")
    kubelet.wait_for_list(GPU, healthy=1)
    daemon.wait_for_line("WARNING .*cannot write .*biren.features")
    (folder / "none").mkdir()
    daemon.wait_for_line("labels for Node Feature Discovery")
    assert len(daemon.matching("cannot write")) == 1
