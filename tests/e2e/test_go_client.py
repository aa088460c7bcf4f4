"""A Go client, which frames its calls as the kubelet's grpc-go does, gets answers and may leave."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from biren_plugin.device_plugin.registration import SECOND_STREAM
from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.conftest import GPU, streams_ended
from tests.e2e.daemon import DEADLINE, DaemonProcess
from tests.kubelet.client import KubeletProcess

SCHEMA = Path(__file__).parents[2] / "schema"


def curl(socket: Path, method: str, request: object) -> list[str]:
    """The command that makes one call."""
    return [
        str(Path(sys.executable).with_name("buf")), "curl",
        "--protocol", "grpc", "--http2-prior-knowledge", "--unix-socket", str(socket),
        "--schema", str(SCHEMA), "--data", json.dumps(request),
        f"http://localhost/v1beta1.DevicePlugin/{method}",
    ]  # fmt: skip


@pytest.fixture
def socket(host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess) -> Path:
    """The plugin's socket, with two cards behind it."""
    host.add_gpus({0: 1, 1: 1})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=2)
    return kubelet.folder / "birentech.com-gpu.sock"


def call(socket: Path, method: str, request: object) -> Any:
    """What the call answered, or failed with."""
    done = subprocess.run(
        curl(socket, method, request), capture_output=True, text=True, timeout=DEADLINE
    )
    return json.loads(done.stdout or done.stderr)


def test_a_go_client_allocates_and_reads_a_refusal(socket: Path) -> None:
    answer = call(socket, "Allocate", {"container_requests": [{"devices_ids": ["card_1"]}]})
    (container,) = answer["containerResponses"]
    assert container["envs"] == {"BR_PHY_CARDS": "card_1"}
    assert container["devices"][0] == {
        "containerPath": "/dev/biren/card_1",
        "hostPath": "/dev/biren/card_1",
        "permissions": "rw",
    }
    answer = call(socket, "Allocate", {"container_requests": [{"devices_ids": ["card_9"]}]})
    assert answer["code"] == "invalid_argument"
    assert "card_9 is not a device of this node" in answer["message"]


def test_a_go_client_may_leave_a_stream_while_the_kubelets_continues(
    socket: Path, kubelet: KubeletProcess, host: SimulatedHost, daemon: DaemonProcess
) -> None:
    daemon.wait_for_line("registered and watched")
    # A stream that opens sooner counts as the kubelet's: its end would end the registration.
    time.sleep(SECOND_STREAM)  # the daemon has no event for the end of this second
    mark = kubelet.mark()
    with subprocess.Popen(
        curl(socket, "ListAndWatch", {}), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as watching:
        assert watching.stdout is not None
        while b"card_1" not in watching.stdout.readline():
            pass
        watching.terminate()
    host.pull_node("card_0")
    kubelet.wait_for_list(GPU, healthy={"card_1"}, unhealthy={"card_0"}, since=mark)
    assert not streams_ended(kubelet, GPU, mark)
