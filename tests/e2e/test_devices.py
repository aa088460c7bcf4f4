"""`devices` shows what is on a host: a table for people, a document with a schema for programs."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from biren_plugin.simulate.host import GPU_MEMORY, SimulatedHost
from tests.e2e.conftest import GPU, HALF, QUARTER
from tests.e2e.daemon import run_command
from tests.support.recorded import HOSTS

SCHEMA = Path(__file__).parents[2] / "schema/devices.schema.json"


def read_document(root: Path) -> dict[str, Any]:
    """What `devices --json` prints of the host, which must be as its schema says."""
    result = run_command("devices", "--json", f"--host-root={root}")
    assert (result.returncode, result.stderr) == (0, "")
    document: dict[str, Any] = json.loads(result.stdout)
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)
    return document


def read_topology(root: Path, *flags: str) -> dict[str, Any]:
    """What `devices --topology --json` prints of the host, which must be as its schema says."""
    result = run_command("devices", "--topology", "--json", f"--host-root={root}", *flags)
    assert (result.returncode, result.stderr) == (0, "")
    document: dict[str, Any] = json.loads(result.stdout)
    schema = json.loads(SCHEMA.with_name("topology.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)
    return document


def show(root: Path) -> list[str]:
    result = run_command("devices", f"--host-root={root}")
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


def test_the_document_has_everything_about_each_card(host: SimulatedHost) -> None:
    host.add_gpus({0: 1, 5: 2})
    document = read_document(host.root)
    assert document["driver_loaded"] is True
    assert document["control_node"] is True
    whole, half, _ = document["devices"]
    assert whole == {
        "card": "card_0",
        "resource": GPU,
        "physical_gpu": 0,
        "product": "0x0106",
        "pci_address": "0000:03:00.0",
        "numa_node": 0,
        "memory_bytes": GPU_MEMORY * 1024,
        "link": {"speed_gts": 32.0, "width": 16, "max_speed_gts": 32.0, "max_width": 16},
        "device_node": "/dev/biren/card_0",
        "healthy": True,
        "reasons": [],
        "excluded_by": None,
        "dra_device": "gpu-0000-03-00-0",
    }
    assert half["resource"] == HALF
    assert half["physical_gpu"] == 5
    assert half["numa_node"] == 1
    assert half["memory_bytes"] == GPU_MEMORY * 1024 // 2


def test_the_table_has_a_row_for_each_card(host: SimulatedHost) -> None:
    host.add_gpus({0: 1, 1: 4})
    headings, *rows = show(host.root)
    assert headings.split() == [
        "CARD", "RESOURCE", "GPU", "PRODUCT", "PCI", "ADDRESS", "NUMA", "MEMORY", "LINK", "DEVICE", "NODE",
        "HEALTH",
    ]  # fmt: skip
    assert [row.split()[:2] for row in rows] == [
        ["card_0", GPU],
        *(["card_" + number, QUARTER] for number in "1234"),
    ]
    assert "63.5 GiB" in rows[0]
    assert "32 GT/s x16" in rows[0]
    assert rows[0].endswith("Healthy")


def test_a_card_without_its_node_is_shown_with_the_reason(host: SimulatedHost) -> None:
    host.add_gpus({0: 1})
    host.pull_node("card_0")
    (device,) = read_document(host.root)["devices"]
    assert device["healthy"] is False
    assert "/dev/biren/card_0 is missing" in device["reasons"][0]
    assert str(host.root) not in json.dumps(device)
    _, row, reason = show(host.root)
    assert row.endswith("Unhealthy")
    assert reason.startswith("    device node /dev/biren/card_0 is missing")


def test_a_card_of_an_unsettled_split_has_no_resource(host: SimulatedHost) -> None:
    host.add_gpus({0: 4})
    host.remove_card("card_3")
    for device in read_document(host.root)["devices"]:
        assert device["resource"] is None
        assert device["healthy"] is None
    _, *rows = show(host.root)
    assert all("not settled" in row for row in rows[:3])


def test_a_card_that_one_scan_cannot_settle_has_a_reason(host: SimulatedHost) -> None:
    host.add_gpus({0: 1, 1: 1})
    memory = host.root / "sys/class/biren/card_1/device/mem_info"
    memory.write_text("MemTotal: 8388608 kB\n")
    *_, row, reason = run_command("devices", f"--host-root={host.root}").stdout.splitlines()
    assert "not settled" in row
    assert reason == (
        "card_1: GPU 1 holds less memory than another GPU of this node, as while it is re-split; "
        "the daemon offers it after 3 s without a change"
    )


def test_an_unreadable_attribute_is_null_and_affects_no_other(host: SimulatedHost) -> None:
    spoiled = ["numa_node", "mem_info", "max_link_speed", "physical_id"]
    host.add_gpus(dict.fromkeys(range(len(spoiled)), 1))
    for number, attribute in enumerate(spoiled):
        path = host.root / f"sys/class/biren/card_{number}/device" / attribute
        path.write_text("garbage\n")
    devices = read_document(host.root)["devices"]
    for device, attribute in zip(devices, spoiled, strict=True):
        found = {
            "numa_node": device["numa_node"],
            "mem_info": device["memory_bytes"],
            "max_link_speed": device["link"]["max_speed_gts"],
            "physical_id": device["physical_gpu"],
        }
        assert [name for name, value in found.items() if value is None] == [attribute]
    rows = [line for line in show(host.root) if re.match(r"card_\d+  ", line)]
    assert len(rows) == len(spoiled)


def test_a_host_without_a_driver_is_not_an_error(tmp_path: Path) -> None:
    assert read_document(tmp_path) == {
        "driver_loaded": False,
        "control_node": False,
        "devices": [],
    }
    (line,) = show(tmp_path)
    assert f"No Biren card on this host: {tmp_path}/sys/class/biren: it does not exist" in line
    assert "modprobe biren" in line


def test_the_topology_has_a_row_and_a_column_for_each_card_and_explains_its_words(
    host: SimulatedHost,
) -> None:
    host.add_gpus({0: 1, 3: 2, 4: 1})
    result = run_command("devices", "--topology", f"--host-root={host.root}")
    assert (result.returncode, result.stderr) == (0, "")
    matrix, legend = result.stdout.split("Legend:")
    headings, *rows = matrix.split("\n")
    assert headings.split() == ["card_0", "card_1", "card_2", "card_3", "NUMA"]
    assert [row.split() for row in rows if row] == [
        ["card_0", "X", "PIX", "PIX", "SYS", "0"],
        ["card_1", "PIX", "X", "GPU", "SYS", "0"],
        ["card_2", "PIX", "GPU", "X", "SYS", "0"],
        ["card_3", "SYS", "SYS", "SYS", "X", "1"],
    ]
    for word in ("X", "PIX", "GPU", "SYS"):
        assert f"\n  {word:4} " in legend


def test_the_topology_document_has_each_pair_once(host: SimulatedHost) -> None:
    host.add_gpus({0: 2, 4: 1})
    document = read_topology(host.root)
    assert document["links_known"] is False
    assert [card["numa_node"] for card in document["cards"]] == [0, 0, 1]
    pairs = {tuple(pair["cards"]): pair for pair in document["pairs"]}
    assert list(pairs) == [("card_0", "card_1"), ("card_0", "card_2"), ("card_1", "card_2")]
    assert pairs["card_0", "card_1"]["same_gpu"] is True
    assert pairs["card_0", "card_2"]["common_ancestor"] == "system"
    assert pairs["card_0", "card_1"]["score"] > pairs["card_0", "card_2"]["score"]


def test_the_topology_of_a_host_without_cards_is_not_an_error(tmp_path: Path) -> None:
    assert read_topology(tmp_path) == {"links_known": False, "cards": [], "pairs": []}
    result = run_command("devices", "--topology", f"--host-root={tmp_path}")
    assert (result.returncode, result.stderr) == (0, "")
    assert "No Biren card" in result.stdout


def test_the_topology_of_vfio_groups_follows_the_pci_tree() -> None:
    root = Path(__file__).parent.parent / "hosts/sriov_mixed"
    flags = ("--topology", "--container-runtime=kata", f"--host-root={root}")
    lines = run_command("devices", *flags).stdout.splitlines()
    row = next(line.split() for line in lines if line.startswith("/dev/vfio/50"))
    assert row == ["/dev/vfio/50", *["PHB"] * 3, "X", *["GPU"] * 3, *["SYS"] * 3, "0"]


def test_the_host_root_comes_from_the_daemons_variable(
    host: SimulatedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.add_gpus({0: 1})
    monkeypatch.setenv("BR_GPU_HOST_ROOT", f"{host.root}")
    result = run_command("devices")
    assert "card_0" in result.stdout


def test_the_topology_of_a_kata_node_shows_its_groups() -> None:
    document = read_topology(HOSTS / "sriov_mixed", "--container-runtime=kata")
    assert document["cards"][0] == {"card": "/dev/vfio/17", "numa_node": 0}
    assert document["pairs"][0]["cards"] == ["/dev/vfio/17", "/dev/vfio/18"]


def test_a_kata_node_without_a_group_gets_advice(tmp_path: Path) -> None:
    kata = ("--container-runtime=kata", f"--host-root={tmp_path}")
    result = run_command("devices", "--topology", *kata)
    assert "devices --container-runtime kata" in result.stdout


def test_two_gpus_with_one_physical_id_are_two_gpus_everywhere(host: SimulatedHost) -> None:
    host.add_gpus({0: 1, 5: 1})
    for folder in (host.root / "sys/class/biren").iterdir():
        (folder / "device/physical_id").write_text("0\n")
    document = read_document(host.root)
    assert [card["resource"] for card in document["devices"]] == [GPU, GPU]
    assert len({card["physical_gpu"] for card in document["devices"]}) == 2
    [pair] = read_topology(host.root)["pairs"]
    assert pair["same_gpu"] is False
    text = "\n".join(show(host.root))
    assert "share physical_id 0" in text
    doctor = run_command("doctor", f"--host-root={host.root}").stdout
    assert "2 cards, on 2 GPUs" in doctor
