"""`doctor` beside a running daemon: its output for people and programs, and its report."""

import io
import json
import signal
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.conftest import GPU
from tests.e2e.daemon import COMMAND, DaemonProcess, run_command
from tests.kubelet.client import KubeletProcess

SCHEMA = Path(__file__).parents[2] / "schema/doctor.schema.json"
Doctor = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def doctor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Runs `doctor` for this node, as on the node itself."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("BR_GPU_HOST_ROOT", f"{folder / 'host'}")
    monkeypatch.setenv("BR_GPU_DEVICE_PLUGIN_DIR", f"{folder / 'plugins'}")
    monkeypatch.setenv("BR_GPU_POD_RESOURCES_DIR", f"{folder / 'pods'}")

    monkeypatch.setenv("BR_GPU_STATUS_DIR", f"{folder / 'status'}")

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        result = run_command("doctor", *words)
        assert result.stderr == ""
        return result

    return run


def read_document(result: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """The document, which must be as its schema says, and its rows by name."""
    document: dict[str, Any] = json.loads(result.stdout)
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)
    assert document["exit_status"] == result.returncode
    document["checks"] = {check["name"]: check for check in document["checks"]}
    return document


def test_a_serving_node_has_no_failure_but_missing_parts_are_shown(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess, doctor: Doctor
) -> None:
    host.add_gpus({0: 1, 1: 1})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=2)
    result = doctor("--json")
    assert result.returncode == 1  # nobody tells which pod holds what; the library is an empty file
    checks = read_document(result)["checks"]
    bad = [name for name, check in checks.items() if check["result"] in ("warning", "failure")]
    assert bad == ["management library", "pod resources"]
    assert checks["kubelet's socket"]["seen"].endswith("kubelet.sock answers")
    assert checks["plugin's sockets"]["seen"] == "birentech.com-gpu.sock answers"
    daemon.send(signal.SIGSTOP)  # the kernel still takes connections for it
    checks = read_document(doctor("--json"))["checks"]
    daemon.send(signal.SIGCONT)
    bad = [name for name, check in checks.items() if check["result"] == "failure"]
    assert bad == ["daemon", "plugin's sockets"]

    host.pull_node("card_1")
    kubelet.wait_for_list(GPU, healthy=1)
    result = doctor()
    assert result.returncode == 2
    heading, first, *_ = result.stdout.splitlines()
    assert heading.split() == ["RESULT", "CHECK", "SEEN"]
    assert first.startswith("failure")  # what is worst comes first
    (line,) = [each for each in result.stdout.splitlines() if " device nodes " in each]
    assert line.startswith("failure")
    assert "/dev/biren/card_1 is missing" in line


def test_faults_seen_only_by_the_daemon_are_failures_too(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess, doctor: Doctor
) -> None:
    # One look does not show that a counter rose, or what the management library said.
    host.add_gpus({0: 1, 1: 1})
    daemon.start("--health-interval=0.2", "--recover-after=30")
    kubelet.wait_for_list(GPU, healthy=2)
    assert read_document(doctor("--json"))["checks"]["daemon"]["result"] == "ok"

    host.count_errors("card_1", "aer_dev_fatal", 1)
    kubelet.wait_for_list(GPU, healthy=1)
    result = doctor("--json")
    assert result.returncode == 2
    row = read_document(result)["checks"]["daemon"]
    assert row["result"] == "failure"
    assert "card_1: " in row["seen"]


def test_an_empty_node_fails_with_advice(doctor: Doctor) -> None:
    result = doctor("--json")
    assert result.returncode == 2
    checks = read_document(result)["checks"]
    assert checks["driver"]["result"] == "failure"
    assert "--host-root" in checks["driver"]["advice"]
    assert checks["kubelet's directory"]["result"] == "failure"


def test_a_pods_missing_mounts_are_shown(
    host: SimulatedHost, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    document = read_document(doctor("--json"))
    assert document["in_pod"] is True
    assert document["checks"]["mount of sys"]["result"] == "failure"


def test_a_report_shows_the_same_on_another_machine(
    host: SimulatedHost, doctor: Doctor, folder: Path
) -> None:
    host.add_gpus({0: 1, 1: 2})
    report = folder / "report.tar.gz"
    document = read_document(doctor("--json", f"--report={report}"))
    with tarfile.open(report) as archive:
        archive.extractall(folder / "there", filter="fully_trusted")
    packed = json.loads((folder / "there/doctor.json").read_text())
    assert {check["name"] for check in packed["checks"]} == set(document["checks"])
    shown = [
        run_command("devices", "--json", f"--host-root={root}").stdout
        for root in (host.root, folder / "there/host")
    ]
    assert shown[0] == shown[1] == (folder / "there/devices.json").read_text()


def test_an_unwritable_report_gives_one_line(doctor: Doctor, folder: Path) -> None:
    result = run_command("doctor", f"--report={folder / 'none/report.tar.gz'}")
    assert result.returncode == 3  # 1 and 2 are about the node
    assert result.stdout.startswith("RESULT")  # and the table all the same
    path = folder / "none/report.tar.gz"
    assert result.stderr == (
        f"br-gpu-device-plugin: cannot write {path}: No such file or directory; create {path.parent}, or correct --report\n"
    )


def test_a_report_can_go_to_standard_output(
    host: SimulatedHost, doctor: Doctor, folder: Path
) -> None:
    host.add_gpus({0: 1})
    result = subprocess.run([*COMMAND, "doctor", "--report", "-"], capture_output=True, timeout=30)
    assert result.returncode == 2  # there is no kubelet
    assert result.stderr.decode().startswith("RESULT")
    with tarfile.open(fileobj=io.BytesIO(result.stdout)) as archive:
        assert {"doctor.json", "devices.json"} <= set(archive.getnames())


def test_the_report_and_the_document_do_not_share_standard_output(doctor: Doctor) -> None:
    result = run_command("doctor", "--json", "--report=-")
    assert (result.returncode, result.stdout) == (2, "")
    assert "--report -: leave out --json" in result.stderr
