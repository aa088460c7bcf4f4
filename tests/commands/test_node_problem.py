"""`status --problem` ends as Node Problem Detector's custom plugins do, and so does its script."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from biren_plugin.commands.node_problem import report_problem
from biren_plugin.commands.show_status import status
from biren_plugin.core.model import Device
from biren_plugin.errors import StatusUnavailable, UsageError
from biren_plugin.monitor.status import status_document
from tests.support.cards import GPU, HALF, devices, listed
from tests.support.daemon_states import new_state

FOLDER = Path(__file__).parents[2] / "manifests/monitoring/node-problem-detector"
SCRIPT = FOLDER / "biren-gpu-problem.sh"


def faulty(number: int) -> Device:
    [device] = devices(GPU, number)
    reasons = ("its PCI function answers 0xFF; see `dmesg`",)
    return attrs.evolve(device, reasons=reasons, faults=("pci-config",))


async def test_faulty_cards_are_named_with_their_probes_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = status_document(new_state(listed(GPU, *devices(GPU, 0), faulty(1), faulty(2))))
    assert report_problem(Path(), lambda _folder: document) == 1
    assert capsys.readouterr().out == (
        "card_1, card_2 (pci-config): its PCI function answers 0xFF; see `dmesg`\n"
    )


async def test_faulty_cards_of_several_resources_are_named_in_the_order_of_their_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    half = attrs.evolve(faulty(2), resource=HALF)
    whole = listed(GPU, faulty(10), *devices(GPU, 0))
    document = status_document(new_state(whole, listed(HALF, half)))
    assert report_problem(Path(), lambda _folder: document) == 1
    assert capsys.readouterr().out.startswith("card_2, card_10 (pci-config): ")


async def test_a_fault_of_the_whole_node_is_said_once_in_the_80_bytes_that_are_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    all_of_them = [faulty(number) for number in range(64)]
    report_problem(Path(), lambda _folder: status_document(new_state(listed(GPU, *all_of_them))))
    line = capsys.readouterr().out
    assert line == "64 of 64 cards (pci-config): its PCI function answers 0xFF; see `dmesg`\n"
    assert len(line) < 80


async def test_scattered_cards_are_counted_and_the_fault_of_most_cards_comes_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    scattered = [attrs.evolve(faulty(each), reasons=(f"why {each}",)) for each in range(1, 40, 2)]
    [other] = devices(GPU, 0)
    other = attrs.evolve(other, reasons=("fell off",), faults=("bus",))
    document = status_document(new_state(listed(GPU, other, *scattered, *devices(GPU, 50))))
    report_problem(Path(), lambda _folder: document)
    assert capsys.readouterr().out == (
        "20 of 22 cards (pci-config), card_0 (bus): why 1; why 3; why 5; "
        "18 more in `br-gpu-device-plugin status`\n"
    )


async def test_a_card_that_recovers_or_is_retired_is_no_problem(
    capsys: pytest.CaptureFixture[str],
) -> None:
    retired = devices(GPU, 1)[0].because("replaced by a new split of GPU 1")
    document = status_document(new_state(listed(GPU, *devices(GPU, 0), retired)))
    assert report_problem(Path(), lambda _folder: document) == 0
    assert capsys.readouterr().out == "no fault in 2 Biren cards\n"


def test_a_daemon_that_does_not_answer_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    def ask(_folder: Path) -> dict[str, object]:
        raise StatusUnavailable("no daemon runs here")

    assert report_problem(Path(), ask) == 2
    assert capsys.readouterr().out == "unknown: no daemon runs here\n"
    with pytest.raises(UsageError):
        status(problem=True, json=True)


Run = Callable[[str], tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the script on a node where crictl is this shell script."""

    def run(crictl: str) -> tuple[int, str]:
        program = tmp_path / "crictl"
        program.write_text(f"#!/bin/sh\n{crictl}\n")
        program.chmod(0o755)
        for name in ("sh", "head"):
            link = tmp_path / name
            if not link.exists():
                link.symlink_to(
                    f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}"
                )
        environment = {**os.environ, "PATH": f"{tmp_path}"}
        done = subprocess.run(
            [SCRIPT], env=environment, capture_output=True, text=True, check=False, timeout=20
        )
        return done.returncode, done.stdout.strip()

    return run


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("echo 'no fault in 8 Biren cards'", (0, "no fault in 8 Biren cards")),
        ("echo 'card_3 (bus): fell off the bus'; exit 1", (1, "card_3 (bus): fell off the bus")),
        ("echo 'unknown: no daemon runs here'; exit 1", (2, "unknown: no daemon runs here")),
        ("exit 1", (2, "unknown: crictl exec failed")),
    ],
)
def test_the_script_passes_the_answer_of_the_container_on(
    run: Run, answer: str, expected: tuple[int, str]
) -> None:
    assert run(f'if [ "$1" = ps ]; then echo abc; else {answer}; fi') == expected


def test_the_script_without_a_container_is_unknown(run: Run) -> None:
    code, text = run("exit 0")
    assert (code, text.partition(":")[0]) == (2, "unknown")


def test_the_configuration_names_the_script_and_its_condition() -> None:
    config = json.loads((FOLDER / "biren-gpu.json").read_text())
    assert config["plugin"] == "custom"
    [condition], [rule] = config["conditions"], config["rules"]
    assert rule["condition"] == condition["type"]
    assert rule["path"].endswith(f"/{SCRIPT.name}")
    assert SCRIPT.stat().st_mode & 0o111
