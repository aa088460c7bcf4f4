"""The cluster session names programs that it cannot use in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import __main__ as session
from tests.cluster.programs import KUBERNETES, KUBERNETES_VARIABLE, NODE_VARIABLE


@pytest.fixture
def binaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with programs that print a version, and nothing else in reach."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("sys.argv", ["cluster", f"--binaries={tmp_path}", "--soak=1"])
    monkeypatch.setenv(KUBERNETES_VARIABLE, "")
    monkeypatch.setenv(NODE_VARIABLE, "")
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in KUBERNETES:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def line(capsys: pytest.CaptureFixture[str]) -> str:
    [text] = capsys.readouterr().out.splitlines()
    return str(text)


def test_a_named_directory_that_lacks_a_program_is_an_error(
    binaries: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (binaries / "kubelet").unlink()
    assert session.main() == 2
    assert line(capsys) == f"cluster: no executable kubelet in {binaries}"


def test_a_program_of_another_architecture_is_an_error(
    binaries: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (binaries / "kubelet").write_bytes(b"\x7fELF of another machine")
    assert session.main() == 2
    assert line(capsys) == f"cluster: {binaries}/kubelet does not run here: Exec format error"


def test_a_directory_that_is_not_there_is_an_error(
    binaries: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["cluster", "--binaries=/nowhere"])
    assert session.main() == 2
    assert line(capsys) == "cluster: /nowhere does not exist"


def test_without_programs_the_session_is_skipped_and_says_what_to_set(
    binaries: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["cluster"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert session.main() == 0
    assert NODE_VARIABLE in line(capsys)


def test_without_root_the_session_is_skipped(
    binaries: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert session.main() == 0
    assert line(capsys) == "cluster: skipped, run the session as root"


def test_what_a_session_leaves_goes_when_its_process_ends_without_tidying_up(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    command = [sys.executable, "-m", "tests.cluster.left_behind", str(state), "br-cluster-none"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as tidier:
        assert tidier.stdin is not None
        assert state.exists()
        tidier.stdin.close()  # as the kernel does it for a process that was killed
        assert tidier.wait(20) == 0
    assert not state.exists()
