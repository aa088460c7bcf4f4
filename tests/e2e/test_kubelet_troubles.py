"""Whatever happens to the kubelet or its directory, every resource is registered again by itself."""

import os
import shutil
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest

from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.conftest import GPU, HALF, streams_ended
from tests.e2e.daemon import COMMAND, DEADLINE, DaemonProcess
from tests.kubelet.client import KubeletProcess

RIVAL = "another plugin on this node registers birentech.com/gpu too"


def test_a_refused_registration_is_tried_again(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    kubelet.command("refuse_next_register", text="not today")
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=1)
    assert daemon.matching("the kubelet refused: .*not today")


def test_a_resource_whose_stream_ends_is_registered_again_without_affecting_others(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1, 1: 2})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=1)
    kubelet.wait_for_list(HALF, healthy=2)
    mark = kubelet.mark()
    kubelet.command("end_stream", resource=GPU)
    kubelet.wait_for_list(GPU, healthy=1, since=mark)
    assert not streams_ended(kubelet, HALF, mark)


def test_repeatedly_ended_streams_name_a_rival_as_the_likely_cause(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    daemon.start()
    for number in range(3):
        kubelet.wait_for_list(GPU, healthy=1)
        daemon.wait_for_line("registered and watched", count=number + 1)
        assert not daemon.matching(RIVAL)
        mark = kubelet.mark()
        kubelet.command("end_stream", resource=GPU)
        kubelet.wait_for_event("disconnected", resource=GPU, since=mark)
    daemon.wait_for_line(RIVAL)
    kubelet.wait_for_list(GPU, healthy=1, since=mark)


def test_kubelet_restarts_do_not_suggest_a_rival(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1, 1: 2})
    daemon.start()
    for _ in range(10):
        kubelet.wait_for_list(GPU, healthy=1)
        kubelet.wait_for_list(HALF, healthy=2)
        kubelet.restart()
    kubelet.wait_for_list(GPU, healthy=1)
    kubelet.wait_for_list(HALF, healthy=2)
    assert not daemon.matching("another plugin")


@pytest.mark.usefixtures("either_way")
def test_a_deleted_socket_is_recreated_and_registered(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=1)
    mark = kubelet.mark()
    (kubelet.folder / "birentech.com-gpu.sock").unlink()
    kubelet.wait_for_list(GPU, healthy=1, since=mark)
    assert (kubelet.folder / "birentech.com-gpu.sock").is_socket()


@pytest.mark.usefixtures("either_way")
def test_the_daemon_moves_over_to_the_recreated_directory(
    host: SimulatedHost, plugins: Path, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    with KubeletProcess(plugins) as kubelet:
        daemon.start()
        kubelet.wait_for_list(GPU, healthy=1)
    shutil.rmtree(plugins)
    plugins.mkdir()
    with KubeletProcess(plugins) as kubelet:
        kubelet.wait_for_list(GPU, healthy=1)
    daemon.wait_for_line("was deleted or re-created: starting over in it")


def test_a_directory_deleted_below_its_mount_ends_the_process_with_the_reason(
    host: SimulatedHost, folder: Path, plugins: Path
) -> None:
    host.add_gpus({0: 1})
    mounted = folder / "mounted"
    mounted.mkdir()
    in_own_mounts = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    if os.geteuid() != 0 or subprocess.run([*in_own_mounts, "true"], check=False).returncode:
        pytest.skip("needs a mount namespace of its own: run as root")
    script = f'mount --bind {plugins} {mounted} && exec {" ".join(COMMAND)} "$@"'
    with subprocess.Popen(
        [
            *in_own_mounts,
            script,
            "sh",
            f"--host-root={host.root}",
            f"--device-plugin-dir={mounted}",
        ],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "waiting for the kubelet" in line:
                    break
            shutil.rmtree(plugins)
            plugins.mkdir()
            said = process.stderr.read()
            assert process.wait(DEADLINE) == 1
        finally:
            process.kill()
    assert "was deleted under its mount and re-created elsewhere" in said
    assert "Traceback" not in said


def test_a_kubelet_stopped_for_a_while_is_served_again(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=1)
    kubelet.stop()
    daemon.wait_for_line(r"waiting for the kubelet: .*kubelet\.sock: Connection refused$")
    kubelet.start()
    kubelet.wait_for_list(GPU, healthy=1)
    assert len(daemon.matching("waiting for the kubelet: .*refused")) == 1


@pytest.mark.parametrize("stays_away", [False, True], ids=["at once", "after a while"])
def test_a_kubelet_restart_is_one_line_and_one_for_each_resource(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess, *, stays_away: bool
) -> None:
    host.add_gpus({0: 1, 1: 2, 2: 4})
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    daemon.start(f"--metrics-address={address}")
    daemon.wait_for_line("registered and watched", count=3)
    before = len(daemon.lines)
    kubelet.stop()
    if stays_away:
        daemon.wait_for_line("waiting for the kubelet: .*refused")
    kubelet.start()
    daemon.wait_for_line("registered and watched", count=6)
    daemon.wait_for_line("the kubelet has restarted")
    # A kubelet that is slow to create its socket may be waited for once more, by the directory.
    lines = [line for line in daemon.lines[before:] if "waiting for the kubelet" not in line]
    assert len(daemon.matching("waiting for the kubelet: .*refused")) == stays_away
    assert len(lines) == 4
    assert all(" INFO " in line for line in lines)
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        assert "br_gpu_restarts_total{" not in answer.read().decode()
