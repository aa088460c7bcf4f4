"""Another plugin takes a resource: it is named and left alone, and its end is noticed."""

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.conftest import GPU
from tests.e2e.daemon import DEADLINE, DaemonProcess, run_command
from tests.kubelet.client import KubeletProcess

ROOT = Path(__file__).parents[2]
TAKEN = f"{GPU}: another plugin has taken it, vendor.sock in .*"
REGISTERED = f"{GPU}: registered and watched"


@pytest.fixture
def kubelet(plugins: Path, folder: Path) -> Iterator[KubeletProcess]:
    """A kubelet that tells who holds what, and what it believes."""
    with KubeletProcess(plugins, "--pod-resources", str(folder / "pod-resources")) as running:
        yield running


@contextlib.contextmanager
def rival(
    plugins: Path, *ids: str, socket: str = "vendor.sock"
) -> Iterator["subprocess.Popen[str]"]:
    """Another plugin, registered; killed at the end of the block if it runs still."""
    words = [sys.executable, "-m", "tests.kubelet.rival", str(plugins), GPU, *ids]
    with subprocess.Popen(
        [*words, f"--socket={socket}"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "registered\n"
            yield process
        finally:
            process.kill()


def status(folder: Path) -> str:
    return run_command("status", f"--status-dir={folder / 'status'}").stdout


def wait_until_pods_are_known(kubelet: KubeletProcess) -> None:
    """Waits until the daemon has asked for the pods later than a moment after its registration."""
    registered = kubelet.wait_for_event("registered", resource=GPU)["at"]
    kubelet.wait_for(
        lambda event: event["event"] == "pod_resources_asked" and event["at"] > registered + 1.5,
        what="a question for the pods",
    )


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_plugin_that_takes_the_resource_is_named_and_its_end_is_noticed(
    host: SimulatedHost,
    kubelet: KubeletProcess,
    daemon: DaemonProcess,
    folder: Path,
    end: signal.Signals,
) -> None:
    host.add_gpus({0: 1, 1: 1})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=2)
    daemon.wait_for_line(REGISTERED)
    mark = kubelet.mark()
    with rival(kubelet.folder, "card_0") as other:
        line = daemon.wait_for_line(TAKEN)
        assert "ERROR" in line
        assert re.search(r"offers 1 \(card_0\) and was sent 2 \(card_0, card_1\)", line)
        assert "another plugin has taken it" in " ".join(status(folder).split())
        ending = kubelet.mark()
        other.send_signal(end)
        kubelet.wait_for_list(GPU, healthy=2, since=ending)
    daemon.wait_for_line(REGISTERED, count=2)
    assert len(daemon.matching(TAKEN)) == 1
    endpoints = [
        event["endpoint"]
        for event in kubelet.events[mark:]
        if event["event"] == "register" and event["resource"] == GPU
    ]
    assert endpoints == ["vendor.sock", "birentech.com-gpu.sock"], "nobody fights"


def test_a_plugin_that_lists_the_same_cards_is_noticed_by_the_first_pod(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    daemon.start()
    daemon.wait_for_line(REGISTERED)
    wait_until_pods_are_known(kubelet)
    with rival(kubelet.folder, "card_0"):
        assert kubelet.admit(GPU, 1, pod="default/train")["ok"]
        line = daemon.wait_for_line(TAKEN)
        assert "pod default/train holds card_0, which this plugin did not allocate" in line


def test_without_the_pod_resources_socket_only_the_directory_shows_a_rival_and_the_log_says_so(
    host: SimulatedHost, plugins: Path, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    with KubeletProcess(plugins) as kubelet:
        daemon.start()
        daemon.wait_for_line(REGISTERED)
        with rival(plugins, "card_0") as other:
            line = daemon.wait_for_line(f"{GPU}: another plugin may have taken it, vendor.sock in ")
            assert "pod-resources" in line
            other.terminate()
            other.wait(DEADLINE)
            daemon.wait_for_line(REGISTERED, count=2)
        kubelet.wait_for_list(GPU, healthy=1)


def test_this_plugins_own_pods_do_not_suggest_a_rival(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1, 1: 1})
    kubelet.command("remember", resource=GPU, ids=["card_0"], pod="default/before")
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=2)
    assert kubelet.admit(GPU, 1, pod="default/train")["ok"]
    wait_until_pods_are_known(kubelet)
    assert not daemon.matching("another plugin")
    with rival(kubelet.folder, "card_0", "card_1"):
        kubelet.command("free", resource=GPU, ids=["card_1"])
        assert kubelet.admit(GPU, 1, pod="default/stolen")["ok"]
        assert "default/stolen" in daemon.wait_for_line(TAKEN)
