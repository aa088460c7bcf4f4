"""`simulate` runs the whole demo without a node, and its exit status shows whether it succeeded."""

import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests.e2e.conftest import GPU, HALF, QUARTER
from tests.e2e.daemon import COMMAND, END_DEADLINE, run_command

STEPS = [
    "the daemon registers",
    "it lists its devices",
    "a pod is given cards",
    "card_7 is pulled",
    "card_7 is put back",
    "card_7 stops answering on its bus",
    "card_7 answers again",
    "GPU 7 is re-split: whole -> in quarters",
    "the kubelet restarts",
    "the daemon stops",
]


def steps_in(text: str) -> list[str]:
    """Return the titles of the steps that were printed with a time."""
    return re.findall(r"^ *[0-9.]+ ms  (.+)$", text, re.MULTILINE)


def test_the_demo_with_eight_whole_gpus_succeeds() -> None:
    result = run_command("simulate")
    assert (result.returncode, result.stderr) == (0, "")
    assert steps_in(result.stdout) == STEPS
    for line in (
        "A card returns to service after 0.5 s without a fault here; on a real node after 30 s",
        f"{GPU}: 8 of 8 healthy",
        f"2 of {GPU}: card_0,card_1",
        "card_0, card_1: behind one PCIe switch",
        "BR_PHY_CARDS=card_0,card_1",
        "/dev/biren/card_1 rw",
        f"{GPU}: 7 of 8 healthy; Unhealthy: card_7",
        "card_7 is Unhealthy: its PCI function 0000:0e:00.0 answers 0xFF",
        "card_7 is Healthy again",
        f"{QUARTER}: 4 of 4 healthy",
        f"{GPU}: 7 of 7 healthy",
        "Every step succeeded.",
    ):
        assert line in result.stdout
    assert "\x1b" not in result.stdout, "no colours in a pipe"


def test_the_demo_with_a_mixed_node_succeeds() -> None:
    result = run_command("simulate", "--gpus", "4", "--svi", "2:2,3:4")
    assert (result.returncode, result.stderr) == (0, "")
    for line in (f"{GPU}: 2 of 2 healthy", f"{HALF}: 2 of 2 healthy", f"{QUARTER}: 4 of 4 healthy"):
        assert line in result.stdout
    assert len(steps_in(result.stdout)) == len(STEPS)


def test_cards_with_numbers_of_two_lengths_keep_their_order() -> None:
    result = run_command("simulate", "--gpus=6", "--svi=0:4,1:2,2:2")
    assert result.returncode == 0
    assert "BR_PHY_CARDS=card_9,card_10" in result.stdout


def test_the_demo_with_one_gpu_succeeds() -> None:
    result = run_command("simulate", "--gpus=1")
    assert result.returncode == 0
    assert f"1 of {GPU}: card_0" in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_keep_running_stays_until_a_signal(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [*COMMAND, "simulate", "--gpus=2", "--keep-running"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    killer = threading.Timer(30, process.kill)  # so that reading its output has an end
    killer.start()
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        told = ""
        for line in process.stdout:
            told += line
            if line.startswith("  br-gpu-device-plugin doctor "):
                break
        folder = Path(told.partition("  kubelet: ")[2].splitlines()[0])
        assert (folder / "birentech.com-gpu.sock").is_socket()
        words = told.partition("  br-gpu-device-plugin status ")[2].splitlines()[0].split()
        shown = run_command("status", *words, timeout=END_DEADLINE)
        assert f"{GPU} " in shown.stdout, "the printed command works as it is"
        process.send_signal(number)
        told += process.stdout.read()
        assert not process.stderr.read()
        assert process.wait(END_DEADLINE) == 0
    killer.cancel()
    assert "Every step succeeded." in told
    assert steps_in(told)[-1] == "the daemon stops"
    assert not folder.exists()


def test_ctrl_c_during_the_demo_ends_it_without_a_traceback() -> None:
    process = subprocess.Popen(
        [*COMMAND, "simulate", "--gpus=100"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        assert "100 GPUs" in first
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert "Traceback" not in process.stderr.read()
        assert process.wait(END_DEADLINE) == 130


def test_a_reader_that_closes_the_pipe_causes_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = subprocess.run(
            [*COMMAND, "simulate"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=30
        )
    finally:
        os.close(writing)
    assert result.returncode == 1
    assert not result.stderr
