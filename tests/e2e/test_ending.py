"""The daemon ends when asked, leaves nothing behind, and is not hindered by another's leftovers."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.conftest import GPU, HALF, QUARTER
from tests.e2e.daemon import DEADLINE, DaemonProcess
from tests.kubelet.client import KubeletProcess

OWN_SOCKETS = "birentech.com-*.sock"
FIRST_IN_CONTAINER = ["unshare", "--fork", "--pid", "--kill-child"]
"""Runs a command as process 1 of a PID namespace, for which SIGTERM has no default action."""


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT],
    ids=lambda each: each.name,
)
def test_a_signal_ends_streams_and_removes_sockets(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess, number: signal.Signals
) -> None:
    host.add_gpus({0: 1, 1: 2, 2: 4})
    daemon.start()
    for resource, count in {GPU: 1, HALF: 2, QUARTER: 4}.items():
        kubelet.wait_for_list(resource, healthy=count)
    assert len(list(kubelet.folder.glob(OWN_SOCKETS))) == 3
    assert daemon.end(number) == 0
    assert not list(kubelet.folder.glob(OWN_SOCKETS))
    for resource in (GPU, HALF, QUARTER):
        kubelet.wait_for_event("stream_ended", resource=resource)
    assert kubelet.state()["allocatable"] == {GPU: 0, HALF: 0, QUARTER: 0}
    assert daemon.matching(f"stopping: {number.name}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
def test_a_signal_ends_a_daemon_that_waits_for_everything(
    daemon: DaemonProcess, number: signal.Signals
) -> None:
    daemon.start()
    daemon.wait_for_line("waiting for .*plugins: no such directory")
    daemon.wait_for_line("no /sys/class/biren")
    assert daemon.end(number) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
def test_a_signal_works_from_the_first_log_line_on(
    daemon: DaemonProcess, number: signal.Signals
) -> None:
    daemon.start()
    daemon.wait_for_line("settings: ")
    assert daemon.end(number) == 0


@pytest.mark.parametrize(
    "number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM], ids=lambda each: each.name
)
def test_a_stray_signal_changes_nothing(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess, number: signal.Signals
) -> None:
    host.add_gpus({0: 1})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=1)
    daemon.send(number)
    mark = kubelet.mark()
    (host.root / "dev/biren/card_0").unlink()
    kubelet.wait_for_list(GPU, healthy=0, unhealthy=1, since=mark)
    assert daemon.end() == 0


def test_a_peer_that_neither_reads_nor_leaves_does_not_delay_the_end(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=1)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(kubelet.folder / "birentech.com-gpu.sock"))
        assert daemon.end() == 0


def test_a_second_signal_ends_the_daemon_at_once_with_its_log_written(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=1)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(kubelet.folder / "birentech.com-gpu.sock"))  # is waited for, for a second
        daemon.send(signal.SIGTERM)
        daemon.wait_for_line("stopping: SIGTERM")
        assert daemon.end() == 128 + signal.SIGTERM
    assert daemon.matching("WARNING ended at once by a second signal: SIGTERM")


@pytest.mark.parametrize("prefix", [[], FIRST_IN_CONTAINER], ids=["process", "first process"])
def test_a_signal_during_imports_ends_the_daemon_with_a_line(
    prefix: list[str], tmp_path: Path
) -> None:
    slow = "print('importing', flush=True); import time; time.sleep(60)"
    (tmp_path / "trio.py").write_text(slow)
    if prefix and subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not create a PID namespace")
    words = [*prefix, sys.executable, "-m", "biren_plugin"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}"}
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "importing\n"
        children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
        os.kill(int(children[0]) if prefix else started.pid, signal.SIGTERM)
        _, errors = started.communicate(timeout=DEADLINE)
    assert started.returncode == 128 + signal.SIGTERM
    assert errors == "br-gpu-device-plugin: stopping: SIGTERM\n"


def test_an_end_during_a_registration_is_clean(
    host: SimulatedHost, plugins: Path, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    with KubeletProcess(plugins, "--hold") as kubelet:
        daemon.start()
        kubelet.wait_for_event("register_held", resource=GPU)
        assert daemon.end() == 0
        assert not list(plugins.glob(OWN_SOCKETS))


def test_a_killed_daemons_socket_does_not_hinder_the_next(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=1)
    daemon.kill()
    assert list(kubelet.folder.glob(OWN_SOCKETS))
    kubelet.wait_for_event("stream_ended", resource=GPU)
    mark = kubelet.mark()
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=1, since=mark)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda each: each.name)
def test_a_second_daemon_stands_by_until_the_first_has_gone(
    host: SimulatedHost,
    kubelet: KubeletProcess,
    new_daemon: Callable[[], DaemonProcess],
    number: signal.Signals,
) -> None:
    host.add_gpus({0: 1})
    first, second = new_daemon(), new_daemon()
    first.start()
    kubelet.wait_for_list(GPU, healthy=1)
    second.start()
    second.wait_for_line("another instance holds .*: standing by")
    mark = kubelet.mark()
    first.end(number)
    kubelet.wait_for_list(GPU, healthy=1, since=mark)
    events = [event["event"] for event in kubelet.events[mark:]]
    assert events.index("stream_ended") < events.index("register"), "old first, then new"


def test_a_standby_daemon_ends_without_affecting_the_first(
    host: SimulatedHost, kubelet: KubeletProcess, new_daemon: Callable[[], DaemonProcess]
) -> None:
    host.add_gpus({0: 1})
    first, second = new_daemon(), new_daemon()
    first.start()
    kubelet.wait_for_list(GPU, healthy=1)
    second.start()
    second.wait_for_line("standing by")
    assert second.end() == 0
    assert kubelet.state()["allocatable"] == {GPU: 1}
    assert kubelet.admit(GPU, 1)["ok"]
