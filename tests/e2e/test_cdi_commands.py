"""`cdi generate` writes what the node needs, and `cdi check` finds each fault of a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from biren_plugin.files.cdi_file import load
from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.daemon import run_command
from tests.support.cdi_resolver import validate
from tests.support.recorded import HOSTS

RECORDED = ["broken", "eight_whole", "mixed", "unsettled"]


class Node:
    """The two commands on one host, with what they print."""

    def __init__(self, host: SimulatedHost, cdi_dir: Path) -> None:
        self.host = host
        self.file = cdi_dir / "biren.yaml"
        self._flags = (f"--host-root={host.root}", f"--cdi-dir={cdi_dir}")

    def generate(self, *flags: str) -> tuple[int, str]:
        """Return exit status and message."""
        result = run_command("cdi", "generate", *self._flags, *flags)
        assert not result.stdout
        return result.returncode, result.stderr

    def check(self, *flags: str) -> tuple[int, list[str]]:
        """Exit status and findings."""
        result = run_command("cdi", "check", *self._flags, *flags)
        assert not result.stderr
        return result.returncode, result.stdout.splitlines()


@pytest.fixture
def node(host: SimulatedHost, folder: Path) -> Node:
    host.add_gpus({0: 1, 1: 2})
    (folder / "cdi").mkdir()
    return Node(host, folder / "cdi")


@pytest.mark.parametrize(
    ("flag", "path"),
    [("--cdi-dir", "typo"), ("--cdi-dir", "typo/deeper"), ("--output", "typo/biren.yaml")],
)
def test_a_typing_error_in_a_path_creates_nothing_and_is_named(
    host: SimulatedHost, folder: Path, flag: str, path: str
) -> None:
    host.add_gpus({0: 1})
    before = sorted(folder.rglob("*"))
    root = f"--host-root={host.root}"
    result = run_command("cdi", "generate", "--overwrite", root, f"{flag}={folder / path}")
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.endswith(f"create it, or correct {flag}")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("flags", [[], ["--mount-host-path", "--mount-dri-device"]], ids=len)
def test_the_file_of_each_recorded_host_is_valid(
    name: str, flags: list[str], tmp_path: Path
) -> None:
    root = f"--host-root={HOSTS / name}"
    result = run_command("cdi", "generate", root, f"--cdi-dir={tmp_path}", *flags)
    assert result.returncode == 0
    spec = load(tmp_path / "biren.yaml")
    assert spec is not None
    validate(spec)
    as_json = run_command("cdi", "generate", root, "--format=json", *flags)
    assert json.loads(as_json.stdout) == spec
    as_yaml = run_command("cdi", "generate", root, "--output", "-", *flags)
    assert as_yaml.stdout == (tmp_path / "biren.yaml").read_text()


def test_an_unsettled_gpu_is_reported_and_left_out(tmp_path: Path) -> None:
    result = run_command(
        "cdi", "generate", f"--host-root={HOSTS / 'unsettled'}", f"--cdi-dir={tmp_path}"
    )
    assert result.returncode == 0
    assert "GPU 1 is being re-split" in result.stderr


def test_a_host_without_a_card_gets_no_file(tmp_path: Path) -> None:
    result = run_command("cdi", "generate", f"--host-root={tmp_path}", f"--cdi-dir={tmp_path}/cdi")
    assert result.returncode == 1
    assert "no Biren card on this host" in result.stderr
    assert not (tmp_path / "cdi").exists()


def test_an_existing_file_with_other_content_is_kept(node: Node) -> None:
    assert node.generate()[0] == 0
    assert node.file.stat().st_mode & 0o777 == 0o644
    before = node.file.read_text()
    assert node.generate() == (0, f"{node.file} is up to date\n")
    status, said = node.generate("--mount-host-path")
    assert status == 1
    assert said == f"{node.file} exists with different content: --overwrite replaces it\n"
    assert node.file.read_text() == before
    assert node.generate("--mount-host-path", "--overwrite")[0] == 0
    assert node.file.read_text() != before


def test_an_unloadable_file_is_replaced_only_with_overwrite(node: Node) -> None:
    node.file.write_text("kind: [")
    assert node.generate()[0] == 1
    assert node.file.read_text() == "kind: ["
    assert node.generate("--overwrite")[0] == 0
    assert node.check()[0] == 0


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_a_path_that_is_not_a_file_is_kept_with_one_line(node: Node, flags: list[str]) -> None:
    node.file.mkdir(parents=True)
    status, said = node.generate(*flags)
    assert status == 1
    assert said.startswith("br-gpu-device-plugin: ")
    assert said.count("\n") == 1
    assert node.file.is_dir()


def test_the_output_may_be_elsewhere(node: Node, tmp_path: Path) -> None:
    elsewhere = tmp_path / "other.json"
    assert node.generate("--output", str(elsewhere), "--format", "json")[0] == 0
    validate(json.loads(elsewhere.read_text()))
    assert not node.file.exists()


def test_a_file_with_what_the_node_needs_has_no_finding(node: Node) -> None:
    node.generate()
    assert node.check() == (0, [f"{node.file}: has what the node needs"])


def test_a_node_without_a_card_needs_no_file(tmp_path: Path) -> None:
    result = run_command("cdi", "check", f"--host-root={tmp_path}", f"--cdi-dir={tmp_path}")
    assert result.returncode == 0


def test_a_missing_file_is_found(node: Node) -> None:
    status, (line,) = node.check()
    assert status == 1
    assert line == f"{node.file}: missing; `br-gpu-device-plugin cdi generate` writes it"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("kind: [", "not YAML or JSON"),
        ("kind: birentech.com/1-2-gpu\n", "not a valid CDI spec"),
    ],
)
def test_an_unloadable_file_is_found(node: Node, content: str, said: str) -> None:
    node.file.write_text(content)
    status, (line,) = node.check()
    assert status == 1
    assert said in line


def edit(file: Path, **changes: Any) -> None:
    spec = load(file)
    assert spec is not None
    file.write_text(json.dumps(spec | changes))


def test_a_wrong_kind_is_found(node: Node) -> None:
    node.generate()
    edit(node.file, kind="vendor.com/gpu")
    assert node.check() == (
        1,
        [f"{node.file}: wrong kind vendor.com/gpu, pods ask for birentech.com/gpu"],
    )


def test_a_stale_file_is_found_with_its_stale_devices(node: Node) -> None:
    node.generate()
    node.host.remove_gpu(1)
    node.host.add_gpus({5: 4})
    assert node.check() == (
        1,
        [f"{node.file}: stale, it lacks card_3, card_4"],
    )
    node.host.remove_gpu(0)
    edges = node.check()[1]
    assert f"{node.file}: stale, the node has no card_0" in edges
    node.generate("--overwrite")
    assert node.check("--mount-host-path") == (
        1,
        [f"{node.file}: stale, other nodes or mounts for every container"],
    )


def test_a_device_with_other_edits_is_found(node: Node) -> None:
    node.generate()
    spec = load(node.file)
    assert spec is not None
    spec["devices"][1]["containerEdits"]["env"] = ["A=B"]
    edit(node.file, devices=spec["devices"])
    assert node.check() == (1, [f"{node.file}: stale, other nodes or mounts for card_1"])


@pytest.mark.parametrize("where", ["cdi", "host/etc/cdi", "host/var/run/cdi"])
def test_a_duplicate_in_another_file_is_found(node: Node, folder: Path, where: str) -> None:
    node.generate()
    other = folder / where / "vendor.json"
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_text(node.file.read_text())
    status, (line,) = node.check()
    assert status == 1
    assert line == f"{other}: duplicate of card_0, card_1, card_2 in {node.file}; remove one"
    edit(other, kind="vendor.com/gpu")
    (other.parent / "broken.yaml").write_text("[")
    (other.parent / "notes.txt").write_text("mine")
    assert node.check()[0] == 0


def test_the_own_file_seen_through_the_host_root_is_not_a_duplicate(
    host: SimulatedHost, folder: Path
) -> None:
    host.add_gpus({0: 1})
    (host.root / "run/cdi").mkdir(parents=True)
    (host.root / "var").mkdir()
    (host.root / "var/run").symlink_to("/run")
    node = Node(host, folder / "host/run/cdi")
    node.generate()
    assert node.check() == (0, [f"{node.file}: has what the node needs"])


def test_the_help_documents_the_exit_statuses() -> None:
    for command in ("generate", "check"):
        text = run_command("cdi", command, "--help").stdout
        assert "Exit status" in text
