"""What an operator sees while faults occur: metrics, probes, status, the log."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from biren_plugin.simulate.host import SimulatedHost
from biren_plugin.wire._proto import podresources_pb2 as pb
from tests.e2e.conftest import GPU, HALF
from tests.e2e.daemon import DaemonProcess, run_command
from tests.kubelet.client import KubeletProcess

SCHEMA = Path(__file__).parents[2] / "schema/status.schema.json"


@pytest.fixture
def address() -> str:
    """A free port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def training_pod(folder: Path) -> Iterator[None]:
    """The kubelet tells that a pod holds card_0: grpcio serves it."""
    answer = pb.ListPodResourcesResponse()
    pod = answer.pod_resources.add(name="train", namespace="default")
    pod.containers.add(name="main").devices.add(resource_name=GPU, device_ids=["card_0"])
    handler = grpc.unary_unary_rpc_method_handler(
        lambda _request, _context: answer.SerializeToString()
    )
    (folder / "pod-resources").mkdir()
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("v1.PodResourcesLister", {"List": handler})]
    )
    server.add_insecure_port(f"unix:{folder}/pod-resources/kubelet.sock")
    server.start()
    yield
    server.stop(None).wait()


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def value(address: str, name: str, **labels: str) -> float | None:
    families = text_string_to_metric_families(get(address, "/metrics")[1])
    return next(
        (
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ),
        None,
    )


def status_of(folder: Path) -> dict[str, Any]:
    result = run_command("status", "--json", f"--status-dir={folder / 'status'}")
    assert (result.returncode, result.stderr) == (0, "")
    document: dict[str, Any] = json.loads(result.stdout)
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)
    return document


def test_metrics_show_a_card_that_fails(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess, address: str
) -> None:
    host.add_gpus({0: 1, 1: 1, 2: 2})
    daemon.start(f"--metrics-address={address}")
    kubelet.wait_for_list(GPU, healthy=2)
    kubelet.wait_for_list(HALF, healthy=2)
    daemon.wait_for_line(f"metrics and probes on {address}")
    daemon.wait_for_line("registered and watched", count=2)
    assert get(address, "/readyz") == (200, "ready\n")
    assert get(address, "/healthz") == (200, "live\n")
    host.pull_node("card_1")
    kubelet.wait_for_list(GPU, healthy=["card_0"], unhealthy=["card_1"])
    # No page of metrics was asked for yet, so none can be a second old.
    assert value(address, "br_gpu_devices", resource=GPU, health="unhealthy") == 1
    assert value(address, "br_gpu_device_healthy", card="card_1") == 0
    assert value(address, "br_gpu_registered", resource=HALF) == 1
    assert 'reason="device node /dev/biren/card_1 is missing' in get(address, "/metrics")[1]
    assert get(address, "/readyz")[0] == 200, "a sick card is no fault of the daemon's"


def test_registrations_and_allocations_are_counted(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess, address: str
) -> None:
    host.add_gpus({0: 1})
    daemon.start(f"--metrics-address={address}")
    kubelet.wait_for_list(GPU, healthy=1)
    daemon.wait_for_line("registered and watched")
    assert kubelet.admit(GPU, 1)["ok"]
    assert not kubelet.allocate(GPU, ["card_7"])["ok"]
    mark = kubelet.mark()
    kubelet.restart()
    kubelet.wait_for_list(GPU, healthy=1, since=mark)
    daemon.wait_for_line("registered and watched", count=2)
    (kubelet.folder / "birentech.com-gpu.sock").unlink()
    daemon.wait_for_line("registered and watched", count=3)
    assert value(address, "br_gpu_allocations_total", resource=GPU, outcome="answered") == 1
    assert value(address, "br_gpu_allocations_total", resource=GPU, outcome="refused") == 1
    assert value(address, "br_gpu_allocation_seconds_count") == 2
    assert value(address, "br_gpu_preferred_allocation_seconds_count") == 1
    assert value(address, "br_gpu_registrations_total", resource=GPU) == 3
    restarts = "the deleted socket's; the kubelet's own restart is no failure"
    assert value(address, "br_gpu_restarts_total", subtree=GPU) == 1, restarts
    assert (value(address, "br_gpu_last_list_timestamp_seconds", resource=GPU) or 0) > 1.7e9
    for probe in ("host-scan", "library-scan", "pod-resources", "kubelet-folder"):
        assert value(address, "br_gpu_probe_seconds", probe=probe) is not None, probe


def test_the_daemon_is_not_ready_until_a_kubelet_accepts_the_registration(
    host: SimulatedHost, plugins: Path, daemon: DaemonProcess, address: str
) -> None:
    host.add_gpus({0: 1})
    daemon.start(f"--metrics-address={address}")
    daemon.wait_for_line(f"metrics and probes on {address}")
    daemon.wait_for_line("found card_0")
    answers = iter(lambda: get(address, "/readyz"), None)  # until the directory has been read
    code, text = next(each for each in answers if "has not been read yet" not in each[1])
    assert (code, text) == (503, f"{GPU}: not registered with the kubelet\n")
    assert get(address, "/healthz")[0] == 200, "waiting is no reason to be restarted"


def test_an_address_in_use_is_logged_and_affects_no_card(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    with socket.create_server(("127.0.0.1", 0)) as server:
        daemon.start(f"--metrics-address=127.0.0.1:{server.getsockname()[1]}")
        kubelet.wait_for_list(GPU, healthy=1)
        daemon.wait_for_line("cannot listen on 127.0.0.1:.* for metrics and probes: .*in use")


@pytest.mark.usefixtures("training_pod")
def test_status_shows_the_daemons_state(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess, folder: Path
) -> None:
    host.add_gpus({0: 1, 1: 1})
    daemon.start(f"--pod-resources-dir={folder / 'pod-resources'}")
    kubelet.wait_for_list(GPU, healthy=2)
    daemon.wait_for_line("registered and watched")
    host.pull_node("card_1")
    kubelet.wait_for_list(GPU, unhealthy=["card_1"])
    document = status_of(folder)
    assert document["role"] == "serving"
    assert document["problems"] == []
    (gpus,) = document["resources"]
    assert gpus["registered"] is True
    held, sick = gpus["devices"]
    assert held["holder"] == {"namespace": "default", "pod": "train", "container": "main"}
    assert (sick["healthy"], sick["holder"]) == (False, None)
    table = run_command("status", f"--status-dir={folder / 'status'}")
    assert (table.returncode, table.stderr) == (0, "")
    rows = [line.split() for line in table.stdout.splitlines()]
    health = {row[0]: "Healthy" in row for row in rows if row[1:2] == [GPU]}
    assert health == {"card_0": True, "card_1": False}
    assert "default/train" in table.stdout


def test_status_without_a_daemon_gives_one_line(folder: Path) -> None:
    result = run_command("status", f"--status-dir={folder / 'status'}")
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("br-gpu-device-plugin: no daemon runs here: no process serves")


def test_a_standby_instance_is_ready_and_answers_for_itself(
    host: SimulatedHost,
    kubelet: KubeletProcess,
    new_daemon: Callable[[], DaemonProcess],
    folder: Path,
    address: str,
) -> None:
    host.add_gpus({0: 1})
    older, newer = new_daemon(), new_daemon()
    older.start()
    kubelet.wait_for_list(GPU, healthy=1)
    newer.start(f"--metrics-address={address}")
    newer.wait_for_line("standing by")
    newer.wait_for_line(f"metrics and probes on {address}")
    assert get(address, "/readyz") == (200, "ready\n")
    mark = kubelet.mark()
    assert older.end() == 0
    kubelet.wait_for_list(GPU, healthy=1, since=mark)
    assert status_of(folder)["role"] == "serving", "the end of the older one left the socket"


def test_the_log_in_a_cluster_has_one_object_a_line(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    daemon.start("--log-format=json")
    kubelet.wait_for_list(GPU, healthy=1)
    daemon.wait_for_line("registered and watched")
    host.pull_node("card_0")
    daemon.wait_for_line("device_unhealthy")
    assert daemon.end() == 0
    events = [json.loads(line) for line in daemon.lines]
    assert events[0]["event"] == "started"
    assert events[-1]["event"] == "stopping"
    sick = next(each for each in events if each["event"] == "device_unhealthy")
    assert (sick["level"], sick["resource"], sick["card"]) == ("warning", GPU, "card_0")
    assert sick["reason"].startswith("device node /dev/biren/card_0 is missing")
