"""Late parts are waited for, logged once, and used when they appear: the daemon never gives up."""

import subprocess
import sys
from pathlib import Path

import pytest

from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.conftest import GPU
from tests.e2e.daemon import DaemonProcess, run_command
from tests.kubelet.client import KubeletProcess

NO_DRIVER = "no /sys/class/biren: waiting for the driver; .*modprobe biren"
NO_CARD = "no Biren card in /sys/class/biren: waiting; see .*lspci"
NO_FOLDER = "waiting for .*plugins: no such directory; is it mounted"
NO_SOCKET = r"waiting for the kubelet: no .*plugins/kubelet\.sock"


def test_the_driver_may_be_loaded_late(
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


def test_cards_may_appear_late(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    daemon.start()
    daemon.wait_for_line(NO_CARD)
    host.add_gpus({0: 1})
    kubelet.wait_for_list(GPU, healthy=1)
    assert len(daemon.matching(NO_CARD)) == 1


def test_the_kubelet_may_start_late(
    host: SimulatedHost, plugins: Path, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    daemon.start()
    daemon.wait_for_line(NO_SOCKET)
    with KubeletProcess(plugins) as kubelet:
        kubelet.wait_for_list(GPU, healthy=1)
    assert len(daemon.matching(NO_SOCKET)) == 1


@pytest.mark.usefixtures("either_way")
def test_everything_may_be_late_at_once(folder: Path, daemon: DaemonProcess) -> None:
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


def test_missing_inotify_is_logged_with_advice(
    host: SimulatedHost, daemon: DaemonProcess, without_inotify: None
) -> None:
    daemon.start()
    daemon.wait_for_line("no inotify: .*raise fs.inotify.max_user_instances")
    daemon.wait_for_line(NO_CARD)


def test_an_idle_holder_of_the_lock_is_named_and_its_end_is_noticed(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess, folder: Path
) -> None:
    host.add_gpus({0: 1})
    script = (
        "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", script, str(kubelet.folder)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        daemon.start()
        daemon.wait_for_line("standing by")
        daemon.wait_for_line(rf"WARNING process {holder.pid} \(.*\) holds the lock on .*plugins")
        said = run_command("status", f"--status-dir={folder / 'status'}").stdout
        assert f"process {holder.pid}" in said
        holder.communicate("")
    kubelet.wait_for_list(GPU, healthy=1)
