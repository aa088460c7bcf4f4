"""containerd resolves the CDI names of the daemon's file; these tests need no kubelet."""

import subprocess
from pathlib import Path

import grpc
import pytest

from tests.cluster.containerd import Containerd
from tests.cluster.host import CONTROL_MINOR, MAJOR, NodeHost
from tests.cluster.runtime_client import run_container
from tests.e2e.daemon import COMMAND

CONTROL = {"biren-m": f"{MAJOR:x}:{CONTROL_MINOR:x}"}


def generate(host: NodeHost, *flags: str) -> None:
    command = [*COMMAND, "cdi", "generate", f"--host-root={host.root}", *flags]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def test_a_container_gets_the_cards_that_it_names_and_the_control_node(
    containerd: Containerd, host: NodeHost, tmp_path: Path
) -> None:
    host.add_gpus({0: 1, 1: 2, 2: 4})
    generate(host)
    names = [f"birentech.com/gpu=card_{number}" for number in (0, 2, 6)]
    inside = run_container(containerd.socket, tmp_path, *names)
    cards = {f"biren/card_{number}": f"{MAJOR:x}:{number:x}" for number in (0, 2, 6)}
    assert inside.nodes == cards | CONTROL
    assert inside.opens == set(inside.nodes)


def test_a_name_that_no_file_has_is_refused_by_name(
    containerd: Containerd, host: NodeHost, tmp_path: Path
) -> None:
    host.add_gpus({0: 1})
    generate(host)
    with pytest.raises(grpc.RpcError, match=r"unresolvable CDI devices birentech.com/gpu=card_9"):
        run_container(containerd.socket, tmp_path, "birentech.com/gpu=card_9")


def test_after_a_new_split_the_same_file_leads_to_the_new_cards(
    containerd: Containerd, host: NodeHost, tmp_path: Path
) -> None:
    host.add_gpus({0: 1, 1: 1})
    generate(host)
    host.split(0, 2)
    generate(host, "--overwrite")
    inside = run_container(containerd.socket, tmp_path, "birentech.com/gpu=card_2")
    assert set(inside.nodes) == {"biren/card_2", "biren-m"}


def test_a_name_in_two_files_resolves_to_neither(
    containerd: Containerd, host: NodeHost, tmp_path: Path
) -> None:
    host.add_gpus({0: 1})
    generate(host)
    other = Path("/etc/cdi/other.yaml")
    other.write_bytes(Path("/etc/cdi/biren.yaml").read_bytes())
    with pytest.raises(grpc.RpcError, match="unresolvable CDI devices"):
        run_container(containerd.socket, tmp_path, "birentech.com/gpu=card_0")
    other.unlink()
    assert run_container(containerd.socket, tmp_path, "birentech.com/gpu=card_0").opens
