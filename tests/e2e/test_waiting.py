"""What is late is waited for, said once, and used when it comes: the daemon never gives up."""

from pathlib import Path

import pytest

from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.conftest import GPU
from tests.e2e.daemon import DaemonProcess
from tests.kubelet.client import KubeletProcess

NO_DRIVER = "no /sys/class/biren: waiting for the driver; .*modprobe biren"
NO_CARD = "no Biren card in /sys/class/biren: waiting; see .*lspci"
NO_FOLDER = "waiting for .*plugins: no such directory; is it mounted"
NO_SOCKET = r"waiting for the kubelet: no .*plugins/kubelet\.sock"


def test_driver_may_be_loaded_late(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    class_folder = host.root / "sys/class/biren"
    class_folder.rmdir()
    daemon.start()
    daemon.wait_for_line(NO_DRIVER)
    class_folder.mkdir()
    host.add_gpus({0: 1})
    kubelet.wait_for_list(GPU, healthy=1)
    assert len(daemon.matching(NO_DRIVER)) == 1


def test_cards_may_come_late(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    daemon.start()
    daemon.wait_for_line(NO_CARD)
    host.add_gpus({0: 1})
    kubelet.wait_for_list(GPU, healthy=1)
    assert len(daemon.matching(NO_CARD)) == 1


def test_kubelet_may_start_late(host: SimulatedHost, plugins: Path, daemon: DaemonProcess) -> None:
    host.add_gpus({0: 1})
    daemon.start()
    daemon.wait_for_line(NO_SOCKET)
    with KubeletProcess(plugins) as kubelet:
        kubelet.wait_for_list(GPU, healthy=1)
    assert len(daemon.matching(NO_SOCKET)) == 1


@pytest.mark.usefixtures("either_way")
def test_everything_may_come_late_at_once(folder: Path, daemon: DaemonProcess) -> None:
    plugins = folder / "plugins"
    daemon.start()
    daemon.wait_for_line(NO_DRIVER)
    daemon.wait_for_line(NO_FOLDER)
    SimulatedHost(folder / "host").add_gpus({0: 1, 1: 1})
    plugins.mkdir()
    with KubeletProcess(plugins) as kubelet:
        kubelet.wait_for_list(GPU, healthy=2)
    assert len(daemon.matching(NO_DRIVER)) == 1
    assert len(daemon.matching(NO_FOLDER)) == 1


def test_missing_inotify_is_said_with_what_to_do(
    host: SimulatedHost, daemon: DaemonProcess, without_inotify: None
) -> None:
    daemon.start()
    daemon.wait_for_line("no inotify: .*raise fs.inotify.max_user_instances")
    daemon.wait_for_line(NO_CARD)
