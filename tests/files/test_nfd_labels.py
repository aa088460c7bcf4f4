"""Labels describe the node in values that Kubernetes accepts, and only while the daemon serves."""

import re
import threading
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.board import Board
from biren_plugin.core.labels import feature_file, node_labels
from biren_plugin.core.model import Device, Inventory, Snapshot
from biren_plugin.core.observed import LibraryRound, Observed
from biren_plugin.core.parse.brml import LibraryFacts
from biren_plugin.core.parse.vendor import FEATURE_FILE
from biren_plugin.errors import FeaturesUnwritable
from biren_plugin.files.nfd_labels import REMOVE_DEADLINE, FeatureFile, publish_labels
from biren_plugin.notice import Notice
from biren_plugin.worker_thread import PATIENCE
from tests.support.cards import GPU, GPU_MEMORY, HALF, QUARTER, card, listed
from tests.support.clocks import Gate, jump, settled


def node(*parts: int, product: str | None = "0x0106") -> Inventory:
    """Return a node whose GPUs are split into these numbers of parts."""
    resources = {1: GPU, 2: HALF, 4: QUARTER}
    found: dict[str, list[Device]] = {}
    number = 0
    for gpu, split in enumerate(parts):
        for _ in range(split):
            each = attrs.evolve(card(number, gpu, parts=split), product=product)
            found.setdefault(resources[split], []).append(Device(each, resources[split]))
            number += 1
    return Inventory(tuple(listed(resource, *devices) for resource, devices in found.items()))


def test_labels_show_count_memory_product_split_and_driver() -> None:
    assert node_labels(node(2, 2), "1.12.0") == {
        "birentech.com/gpu.count": "2",
        "birentech.com/gpu.memory": f"{GPU_MEMORY // 1024**2}",
        "birentech.com/gpu.product": "0x0106",
        "birentech.com/gpu.split": "2",
        "birentech.com/driver.version": "1.12.0",
    }


def test_different_gpus_are_mixed_and_the_smallest_memory_counts() -> None:
    inventory = node(1, 4)
    (whole, *_), quarters = (each.devices for each in inventory.lists)
    small = attrs.evolve(whole.card, memory=GPU_MEMORY // 2, product="0x0107")
    labels = node_labels(
        Inventory((listed(GPU, Device(small, GPU)), listed(QUARTER, *quarters))), None
    )
    assert labels == {
        "birentech.com/gpu.count": "2",
        "birentech.com/gpu.memory": f"{GPU_MEMORY // 2 // 1024**2}",
        "birentech.com/gpu.product": "mixed",
        "birentech.com/gpu.split": "mixed",
    }


def test_a_retiring_split_does_not_count() -> None:
    leaving = Device(card(0, 0), GPU).because("replaced by a new split of GPU 0")
    [halves] = node(2).lists
    labels = node_labels(Inventory((listed(GPU, leaving), halves)), None)
    assert labels["birentech.com/gpu.split"] == "2"
    [quarters] = node(4).lists
    sick = listed(QUARTER, *[each.because("sick") for each in quarters.devices])
    assert node_labels(Inventory((sick,)), None)["birentech.com/gpu.split"] == "4"


def test_a_node_without_a_gpu_has_no_label_and_no_file() -> None:
    gone = attrs.evolve(card(0, 0), present=False)
    for inventory in (Inventory(), Inventory((listed(GPU, Device(gone, GPU)),))):
        assert node_labels(inventory, "1.12.0") == {}
    assert feature_file({}) == ""


@given(st.text(max_size=80), st.none() | st.text(max_size=8), st.lists(st.sampled_from([1, 2, 4])))
def test_kubernetes_accepts_every_label_value(
    version: str, product: str | None, parts: list[int]
) -> None:
    for name, value in node_labels(node(*parts, product=product), version).items():
        assert re.fullmatch(r"birentech\.com/[a-z.]{1,63}", name)
        assert len(value) <= 63
        assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?", value)


def test_the_file_has_a_line_for_each_label_and_no_nfd_directive() -> None:
    comment, *lines = feature_file({"a/b": "1", "a/c": "x"}).splitlines()
    assert comment.startswith("# ")
    assert not comment.startswith("# +")
    assert lines == ["a/b=1", "a/c=x"]


def test_the_file_is_replaced_whole_and_only_when_something_changed(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path)
    assert file.write("one\n")
    first = (tmp_path / FEATURE_FILE).stat().st_ino
    assert not file.write("one\n")
    assert (tmp_path / FEATURE_FILE).stat().st_ino == first
    assert file.write("two\n")
    assert [path.name for path in tmp_path.iterdir()] == [FEATURE_FILE]
    assert (tmp_path / FEATURE_FILE).read_text() == "two\n"
    assert file.write("")
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_file_is_not_removed(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path)
    file.write("ours\n")
    (tmp_path / FEATURE_FILE).write_bytes(b"\xfftheirs\n")
    file.remove()
    assert (tmp_path / FEATURE_FILE).exists()


def test_the_file_of_the_daemon_that_took_over_stays_even_with_equal_content(
    tmp_path: Path,
) -> None:
    old, new = FeatureFile(tmp_path), FeatureFile(tmp_path)
    old.write("text\n")
    new.write("text\n")
    old.remove()
    assert (tmp_path / FEATURE_FILE).read_text() == "text\n"
    new.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_a_killed_daemon_is_removed_when_there_is_no_card(tmp_path: Path) -> None:
    FeatureFile(tmp_path).write("text\n")
    assert not FeatureFile(tmp_path).write(""), "nothing to log"
    assert list(tmp_path.iterdir()) == []


def test_a_deleted_labels_file_is_written_again(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path)
    file.write("text\n")
    (tmp_path / FEATURE_FILE).unlink()
    assert file.write("text\n")
    assert (tmp_path / FEATURE_FILE).read_text() == "text\n"


def test_the_error_names_a_missing_directory_and_its_flag(tmp_path: Path) -> None:
    with pytest.raises(FeaturesUnwritable, match="--nfd-features-dir"):
        FeatureFile(tmp_path / "none").write("text\n")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a thread, which no clock of the test controls."""
    with trio.fail_after(20):
        while not condition():
            await trio.lowlevel.checkpoint()


async def test_labels_follow_the_inventory_and_are_removed_when_the_daemon_ends(
    tmp_path: Path,
) -> None:
    inventory, observed = Board[Inventory](), Board[Observed]()
    observed.post(Observed(Snapshot(driver_version="1.12.0")))
    path = tmp_path / FEATURE_FILE
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish_labels, tmp_path, inventory, observed, Notice())
        for parts, count in (((1, 1), 2), ((1,), 1)):
            inventory.post(node(*parts))
            line = f"birentech.com/gpu.count={count}\n"
            await until(lambda line=line: path.exists() and line in path.read_text())  # type: ignore[misc]
        assert "birentech.com/driver.version=1.12.0\n" in path.read_text()
        inventory.post(Inventory())
        await until(lambda: not path.exists())
        inventory.post(node(1))
        await until(path.exists)
        nursery.cancel_scope.cancel()
    assert not path.exists()


async def test_a_hanging_disk_holds_up_neither_the_daemon_nor_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mock_clock: trio.testing.MockClock
) -> None:
    hangs, let_go, shown = threading.Event(), Gate(), list[str]()

    write_text = Path.write_text

    def hang(path: Path, text: str) -> None:
        assert threading.current_thread() is not threading.main_thread()
        hangs.set()
        let_go.wait()
        write_text(path, text)

    monkeypatch.setattr(Path, "write_text", hang)
    inventory = Board[Inventory]()
    inventory.post(node(1))
    scope = trio.CancelScope()

    async def publish() -> None:
        with scope:
            await publish_labels(tmp_path, inventory, Board[Observed](), Notice(shown.append))

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            assert await trio.to_thread.run_sync(hangs.wait, 20)
            await jump(mock_clock, PATIENCE)
            await settled()
            assert shown[-1].startswith(f"writing {tmp_path / FEATURE_FILE} (--nfd-features-dir)")
            scope.cancel()
            await jump(mock_clock, REMOVE_DEADLINE)
            let_go.set()
            await settled()
            assert (
                list(tmp_path.iterdir()) == []
            )  # it came too late: the file may be another daemon's
    finally:
        let_go.set()


@pytest.mark.parametrize(
    ("version", "label"),
    [
        ("1.12.0", "1.12.0"),
        ("1.12.0+build.5 (x)", "1.12.0-build.5-x"),
        ("1.12.0+" + "x" * 80, "1.12.0-" + "x" * 56),
    ],
)
def test_a_version_becomes_a_valid_label_value(version: str, label: str) -> None:
    assert node_labels(node(1), version)["birentech.com/driver.version"] == label


async def test_the_librarys_driver_version_becomes_a_label_once_known(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    inventory, observed = Board[Inventory](), Board[Observed]()
    observed.post(Observed(Snapshot()))
    inventory.post(node(1))
    nursery.start_soon(publish_labels, tmp_path, inventory, observed, Notice())
    path = tmp_path / FEATURE_FILE
    await until(path.exists)
    for version in ("1.12.0", "1.13.0"):
        known = LibraryRound(0.0, LibraryFacts("", driver_version=version))
        observed.post(Observed(Snapshot(), known))
        line = f"driver.version={version}\n"
        await until(lambda line=line: line in path.read_text())  # type: ignore[misc]
