"""Each command of README and docs/ that can be run here works as documented."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.conftest import GPU
from tests.e2e.daemon import DaemonProcess, run_command
from tests.kubelet.client import KubeletProcess
from tests.support.documents import ROOT, commands

OURS = "br-gpu-device-plugin"
ELSEWHERE = {
    "kubectl apply": "tests/manifests renders and checks what it would apply",
    "helm upgrade": "tests/manifests renders and checks what it would install",
    "podman build": "tests/manifests/test_image.py builds it so",
    "podman run": "test_podman.py runs it on each recorded host",
    ".venv/bin/nox": "whoever runs this test may just have typed it",
    "status --watch": "test_status.py has it in a terminal",
}
"""What is run by others, and by whom."""


def is_run_here(command: str) -> bool:
    return not any(words in command for words in ELSEWHERE)


def test_commands_that_others_run_are_still_documented() -> None:
    for words in ELSEWHERE:
        assert any(words in command for command in commands()), words


@pytest.mark.parametrize("command", [line for line in commands() if not is_run_here(line)])
def test_files_that_a_command_names_are_there(command: str) -> None:
    for word in command.split():
        if word.startswith(("manifests/", "tests/", "schema/")):
            assert (ROOT / word).exists()


def test_the_main_job_runs_with_one_command_on_a_fresh_copy(tmp_path: Path) -> None:
    (command,) = [line for line in commands() if line.endswith(f"{OURS} simulate")]
    for name in ("pyproject.toml", "README.md", "LICENSE", "biren_plugin"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    result = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert "Every step succeeded." in result.stdout


def test_the_documented_commands_of_a_node_answer(
    folder: Path,
    host: SimulatedHost,
    kubelet: KubeletProcess,
    daemon: DaemonProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host.add_gpus({0: 1, 1: 2})
    mine = [line.split() for line in commands() if line.startswith(OURS) and is_run_here(line)]
    assert [OURS] in mine, "the daemon itself"
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=1)
    (folder / "cdi").mkdir(exist_ok=True)
    for name, value in {
        "HOST_ROOT": host.root,
        "CDI_DIR": folder / "cdi",
        "STATUS_DIR": folder / "status",
        "DEVICE_PLUGIN_DIR": folder / "plugins",
        "POD_RESOURCES_DIR": folder / "pod-resources",
    }.items():
        monkeypatch.setitem(os.environ, f"BR_GPU_{name}", str(value))
    for _, *words in [line for line in mine if len(line) > 1]:
        result = run_command(*words)
        # `doctor` warns of what this machine lacks of a node.
        allowed = (0, 1, 2) if words[0] == "doctor" else (0,)
        assert result.returncode in allowed, (words, result)
        assert result.stdout or result.stderr
