"""One scan reads the whole host, and no broken file keeps the others from being read."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from biren_plugin.commands.show_devices import judge_once
from biren_plugin.core.model import Snapshot
from biren_plugin.core.parse.card import Card, FunctionState, Link, NodeState
from biren_plugin.errors import HostUnreadable
from biren_plugin.host import driver_cards
from biren_plugin.host.driver_cards import DriverCardReader
from biren_plugin.host.host_paths import node_state
from biren_plugin.host.readers import read_once
from tests.support.recorded import HOSTS, copy_host

GPU_MEMORY = 65_024 * 1024**2
LINK = Link(speed=32.0, width=16, max_speed=32.0, max_width=16)


def read(name: str) -> Snapshot:
    return read_once(DriverCardReader(HOSTS / name))


def read_anew(reader: DriverCardReader) -> Snapshot:
    cards = {name: reader.read(name, fresh=True) for name in reader.names()}
    return reader.snapshot({name: card for name, card in cards.items() if card is not None}, ())


def by_number(look: Snapshot) -> dict[int, Card]:
    return {card.number: card for card in look.cards}


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return copy_host("eight_whole", tmp_path / "host")


@pytest.fixture
def broken() -> dict[int, Card]:
    return by_number(read("broken"))


def attribute(host: Path, number: int, name: str) -> Path:
    return host / f"sys/class/biren/card_{number}/device/{name}"


def test_whole_gpus_are_read_with_all_their_sysfs_attributes() -> None:
    look = read("eight_whole")
    assert look.driver_loaded
    assert look.host.control_node
    assert look.cards == tuple(
        Card(
            name=f"card_{number}",
            number=number,
            physical_id=number,
            memory=GPU_MEMORY,
            pci_path=("pci0000:00", f"0000:00:0{number // 4}.0", f"0000:{number + 1:02x}:00.0"),
            product="0x0106",
            numa_node=number // 4,
            link=LINK,
        )
        for number in range(8)
    )


def test_instances_share_the_gpus_id_address_and_memory() -> None:
    cards = by_number(read("mixed"))
    assert list(cards) == list(range(11)), "by number, not by name"
    assert [cards[number].physical_id for number in cards] == [0, 1, 2, 2, 3, 3, 4, 4, 4, 4, 5]
    assert {cards[number].pci_address for number in (6, 7, 8, 9)} == {"0000:05:00.0"}
    assert [cards[number].memory for number in (0, 2, 6)] == [
        GPU_MEMORY,
        GPU_MEMORY // 2,
        GPU_MEMORY // 4,
    ]


def test_an_unsettled_split_is_read_unchanged() -> None:
    look = read("unsettled")
    assert [card.physical_id for card in look.cards] == [0, 1, 1, 1, 2, 2]


def test_a_node_without_the_driver_has_no_card() -> None:
    assert read("empty") == Snapshot(driver_loaded=False)


def test_a_driver_without_a_card_differs_from_no_driver(tmp_path: Path) -> None:
    (tmp_path / "sys/class/biren").mkdir(parents=True)
    assert read_once(DriverCardReader(tmp_path)) == Snapshot(driver_loaded=True)


def test_a_dangling_class_link_is_not_a_card(broken: dict[int, Card]) -> None:
    assert list(broken) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]


def test_the_state_of_each_device_node_is_read(broken: dict[int, Card]) -> None:
    states = {number: card.node for number, card in broken.items()}
    assert states.pop(0) is NodeState.OTHER
    assert states.pop(9) is NodeState.MISSING
    assert set(states.values()) == {NodeState.CHARACTER_DEVICE}


def test_unreadable_attributes_are_none(broken: dict[int, Card]) -> None:
    assert [number for number, card in broken.items() if card.physical_id is None] == [
        1, 2, 6, 7, 8,
    ]  # fmt: skip
    assert [number for number, card in broken.items() if card.memory is None] == [1, 3, 4, 7, 8]
    assert [number for number, card in broken.items() if card.numa_node is None] == [2, 3, 4, 8]
    assert broken[3].link == Link(max_speed=32.0, max_width=16)
    assert broken[8] == Card("card_8", 8)


def test_one_broken_card_does_not_affect_the_next(broken: dict[int, Card]) -> None:
    assert broken[10] == Card(
        "card_10",
        10,
        physical_id=10,
        memory=GPU_MEMORY,
        pci_path=("pci0000:00", "0000:00:02.0", "0000:0b:00.0"),
        product="0x0106",
        numa_node=2,
        link=LINK,
    )


def test_a_fifo_in_place_of_an_attribute_does_not_block(host: Path) -> None:
    physical_id = attribute(host, 0, "physical_id")
    physical_id.unlink()
    os.mkfifo(physical_id)
    cards = read_once(DriverCardReader(host)).cards
    assert [card.physical_id for card in cards] == [None, 1, 2, 3, 4, 5, 6, 7]


def test_an_attribute_whose_read_fails_is_none(host: Path) -> None:
    physical_id = attribute(host, 0, "physical_id")
    physical_id.unlink()
    physical_id.symlink_to("/proc/self/mem")  # opens, and fails with EIO when read
    cards = read_once(DriverCardReader(host)).cards
    assert [card.physical_id for card in cards] == [None, 1, 2, 3, 4, 5, 6, 7]


def test_a_class_link_to_itself_is_not_a_card(host: Path) -> None:
    link = host / "sys/class/biren/card_0"
    link.unlink()
    link.symlink_to("card_0")
    assert list(by_number(read_once(DriverCardReader(host)))) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("target", ["card_0", "../../devices/pci0000:00/0000:00:00.0/biren/card_0"])
def test_a_second_entry_of_a_card_is_left_out_and_its_gpu_stays_whole(
    host: Path, target: str
) -> None:
    (host / "sys/class/biren/card_8").symlink_to(target)
    look = read_once(DriverCardReader(host))
    assert list(by_number(look)) == list(range(8))
    [sentence] = look.left_out
    assert sentence.startswith(
        "card_8 in /sys/class/biren is a second entry of card_0, and left out"
    )
    inventory = judge_once(look)
    assert [each.resource for each in inventory.lists] == ["birentech.com/gpu"]
    assert inventory.unsettled == (sentence,)


def test_changing_attributes_are_read_at_each_scan(host: Path) -> None:
    reader = DriverCardReader(host)
    before = read_once(reader)
    attribute(host, 0, "physical_id").write_text("40\n")
    attribute(host, 0, "mem_info").write_text("MemTotal: 5\n")
    (host / "dev/biren/card_0").unlink()
    first, *others = read_once(reader).cards
    assert (first.physical_id, first.memory) == (40, 5 * 1024)
    assert first.node is NodeState.MISSING
    assert tuple(others) == before.cards[1:]


def test_constant_attributes_are_read_again_only_in_a_full_scan(host: Path) -> None:
    reader = DriverCardReader(host)
    before = read_once(reader)
    attribute(host, 0, "numa_node").write_text("9\n")
    assert read_once(reader) == before
    assert read_anew(reader).cards[0].numa_node == 9
    assert read_once(reader).cards[0].numa_node == 9


def test_a_returning_card_is_read_from_scratch(host: Path) -> None:
    reader = DriverCardReader(host)
    read_once(reader)
    link = host / "sys/class/biren/card_0"
    target = link.readlink()
    link.unlink()
    assert list(by_number(read_once(reader))) == [1, 2, 3, 4, 5, 6, 7]
    attribute_of_gpu = host / "sys/devices/pci0000:00/0000:00:00.0/0000:01:00.0/numa_node"
    attribute_of_gpu.write_text("9\n")
    link.symlink_to(target)
    assert read_once(reader).cards[0].numa_node == 9


def test_a_name_that_passed_to_another_gpu_between_two_scans_is_read_from_scratch(
    host: Path,
) -> None:
    reader = DriverCardReader(host)
    read_once(reader)
    link = host / "sys/class/biren/card_0"
    target = (host / "sys/class/biren/card_7").readlink().with_name("card_0")
    folder = link.parent / target
    folder.mkdir()
    (folder / "device").symlink_to((folder.with_name("card_7") / "device").readlink())
    link.unlink()
    link.symlink_to(target)
    first = read_once(reader).cards[0]
    assert (first.name, first.physical_id) == ("card_0", 7)
    assert (first.pci_address, first.numa_node) == ("0000:08:00.0", 1)


def test_a_name_that_passed_to_another_gpu_in_the_same_inode_is_read_from_scratch(
    host: Path,
) -> None:
    """File systems give a new directory the inode of the one that was just removed."""
    reader = DriverCardReader(host)
    read_once(reader)
    device = host / "sys/devices/pci0000:00/0000:00:00.0/biren/card_0/device"
    made = device.parent.stat().st_ctime_ns
    while device.parent.stat().st_ctime_ns == made:  # file systems count time in coarse ticks
        device.unlink()
        device.symlink_to("../../../0000:00:01.0/0000:08:00.0")
    first = read_once(reader).cards[0]
    assert first.physical_id == 7
    assert (first.pci_address, first.numa_node) == ("0000:08:00.0", 1)


def test_the_drivers_files_and_the_render_node_are_read_only_if_requested() -> None:
    assert read("mixed").host.mounts == ()
    assert read("mixed").host.dri_node is None
    wanted = read_once(
        DriverCardReader(HOSTS / "mixed", mount_host_path=True, mount_dri_device=True)
    ).host
    assert len(wanted.mounts) == 5
    assert wanted.dri_node == "/dev/dri/renderD129"


def test_nothing_on_the_host_makes_a_scan_fail(host: Path) -> None:
    too_long = "x" * 300
    for path in ("dev/biren-m", "dev/biren/card_0", "sys/class/biren/card_1"):
        (host / path).unlink()
        (host / path).symlink_to(too_long)
    cards = by_number(read_once(DriverCardReader(host)))
    assert cards[0].node is NodeState.MISSING
    assert list(cards) == [0, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.EIO])
def test_an_unreadable_class_directory_does_not_count_as_missing(
    host: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(_path: object) -> list[str]:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(HostUnreadable, match=os.strerror(number)):
        read_once(DriverCardReader(host))


def sleep(host: Path, number: int, status: str = "suspended") -> None:
    power = attribute(host, number, "power")
    power.mkdir(exist_ok=True)
    (power / "runtime_status").write_text(f"{status}\n")


@pytest.mark.parametrize("status", ["suspended", "suspending"])
def test_a_suspended_card_is_not_woken_and_is_not_faulty(host: Path, status: str) -> None:
    reader = DriverCardReader(host)
    awake = read_once(reader).cards[0]
    sleep(host, 0, status)
    attribute(host, 0, "config").write_bytes(b"\xff\xff")
    attribute(host, 0, "current_link_width").write_text("1\n")
    asleep = read_once(reader).cards[0]
    assert asleep.function is FunctionState.UNKNOWN
    assert asleep.link.width is None
    assert (asleep.link.speed, asleep.link.max_width) == (awake.link.speed, awake.link.max_width)
    sleep(host, 0, "active")
    assert read_once(reader).cards[0].function is FunctionState.SILENT


def test_a_card_first_read_while_suspended_is_read_whole_once_awake(host: Path) -> None:
    reader = DriverCardReader(host)
    sleep(host, 0)
    assert read_once(reader).cards[0].link.speed is None
    sleep(host, 0, "active")
    assert read_once(reader).cards[0].link == LINK


def glance(reader: DriverCardReader, turns: int = 5) -> list[Card | None] | None:
    """Return the readings of one glance; None if the host looks different."""
    due = reader.due(turns)
    return [reader.glance(name) for name in due] if due is not None else None


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the attributes that are opened from now on, as `0000:01:00.0/config`."""
    paths: list[str] = []
    real = os.open

    def noted(path: str, *arguments: int) -> int:
        paths.append("/".join(str(path).split("/")[-2:]))
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", noted)
    return paths


def test_a_glance_asks_each_function_once_and_reads_one_in_turn_whole(
    host: Path, opened: list[str]
) -> None:
    reader = DriverCardReader(host)
    read_once(reader)
    whole: list[str] = []
    for _ in range(8):
        opened.clear()
        assert glance(reader, turns=8) is not None
        of_functions = [path for path in opened if not path.startswith("biren/")]
        assert sum(path.endswith("/config") for path in of_functions) == 8
        assert sum(path.endswith("/mem_info") for path in of_functions) == 1
        whole += [path for path in of_functions if path.endswith("/aer_dev_fatal")]
        assert len(of_functions) == 8 + 6, "config of all, and six more attributes of one"
    assert len(set(whole)) <= 8
    assert len(whole) == 8, "each function had its turn"


def test_a_glance_returns_the_same_cards_while_nothing_changes(host: Path) -> None:
    reader = DriverCardReader(host)
    before = read_once(reader).cards
    for _ in range(5):
        attribute(host, 3, "mem_info").write_text(
            f"MemTotal: {GPU_MEMORY // 1024} kB\nMemFree: 7\n"
        )
        seen = glance(reader)
        assert seen is not None
        assert all(new is old for new, old in zip(seen, before, strict=True))


def test_a_card_that_could_not_be_read_yet_is_looked_at_in_each_glance(host: Path) -> None:
    """The driver's link is there before what it leads to, as while it is loaded."""
    folder = (host / "sys/class/biren/card_3").resolve()
    folder.rename(host / "aside")
    reader = DriverCardReader(host)
    assert [card.number for card in read_once(reader).cards] == [0, 1, 2, 4, 5, 6, 7]
    assert None in (glance(reader) or ())
    (host / "aside").rename(folder)
    assert 3 in [card.number for card in glance(reader) or () if card is not None]


def test_a_card_whose_directory_has_changed_is_read_from_scratch_in_one_round_of_glances(
    host: Path,
) -> None:
    reader = DriverCardReader(host)
    read_once(reader)
    attribute(host, 3, "numa_node").write_text("7\n")  # constant for as long as a card lives
    (host / "sys/class/biren/card_3/late").touch()
    rounds = [glance(reader) for _ in range(5)]
    assert any(card.numa_node == 7 for cards in rounds for card in cards or () if card)


def test_a_silent_function_is_seen_at_the_next_glance(host: Path) -> None:
    reader = DriverCardReader(host)
    read_once(reader)
    for number in range(8):
        attribute(host, number, "config").write_bytes(b"\xff\xff")
        seen = glance(reader)
        assert seen is not None
        assert [card.number for card in seen if card and card.function is FunctionState.SILENT] == [
            *range(number + 1)
        ]


@pytest.mark.parametrize(
    ("name", "text"), [("aer_dev_fatal", "TOTAL_ERR_FATAL 9\n"), ("physical_id", "40\n")]
)
def test_what_changes_rarely_is_seen_in_one_round_of_glances(
    host: Path, name: str, text: str
) -> None:
    reader = DriverCardReader(host)
    before = read_once(reader).cards[7]
    attribute(host, 7, name).write_text(text)
    rounds = [glance(reader) for _ in range(5)]
    seen = [cards[7] for cards in rounds if cards is not None]
    assert len(seen) == 5
    assert seen[-1] != before


def test_a_glance_does_not_wake_a_suspended_card(host: Path, opened: list[str]) -> None:
    reader = DriverCardReader(host)
    attribute(host, 0, "config").write_bytes(b"\xe0\x1e")
    sleep(host, 0)
    read_once(reader)
    opened.clear()
    for _ in range(5):
        assert glance(reader) is not None
    assert "0000:01:00.0/config" not in opened
    assert "device/config" not in [path for path in opened if "card_0" in path]
    sleep(host, 0, "active")
    seen = glance(reader)
    assert seen is not None
    assert seen[0] is not None
    assert seen[0].function is FunctionState.ANSWERS


@pytest.mark.parametrize("change", ["card", "node", "module", "control node"])
def test_a_glance_at_a_host_that_looks_different_asks_for_a_whole_scan(
    host: Path, change: str
) -> None:
    (host / "sys/module/biren").mkdir(parents=True, exist_ok=True)
    reader = DriverCardReader(host)
    read_once(reader)
    assert glance(reader) is not None
    match change:
        case "card":
            (host / "sys/class/biren/card_7").unlink()
        case "node":
            (host / "dev/biren/card_7").unlink()
        case "module":
            (host / "sys/module/biren").rename(host / "sys/module/other")
        case _:
            (host / "dev/biren-m").unlink()
    assert glance(reader) is None
    read_once(reader)
    assert glance(reader) is not None


def test_cards_of_one_function_cost_one_read_in_a_glance(tmp_path: Path) -> None:
    reader = DriverCardReader(copy_host("mixed", tmp_path / "host"))
    cards = read_once(reader).cards
    due = reader.due(5)
    assert due is not None
    assert len(cards) == 11
    assert len(due) == len({card.pci_path for card in cards}) == 6


def test_a_node_that_appears_behind_a_link_calls_for_a_whole_scan(host: Path) -> None:
    (host / "dev/biren/card_3").unlink()
    (host / "dev/biren/card_3").symlink_to("/dev/late")
    reader = DriverCardReader(host)
    assert read_once(reader).cards[3].node is NodeState.MISSING
    assert glance(reader) is not None
    (host / "dev/late").touch()
    assert glance(reader) is None


def test_the_node_behind_a_link_is_looked_at_in_each_glance(host: Path) -> None:
    (host / "dev/real").touch()
    (host / "dev/biren/card_3").unlink()
    (host / "dev/biren/card_3").symlink_to("/dev/real")
    reader = DriverCardReader(host)
    assert read_once(reader).cards[3].host_node == "/dev/real"
    assert glance(reader) is not None
    (host / "dev/real").unlink()
    assert glance(reader) is None


def test_a_glance_goes_on_while_a_late_read_finds_another_linked_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copy_host("eight_whole", tmp_path / "host")
    for name in ("card_0", "card_1"):
        (root / f"dev/{name}").touch()
        (root / f"dev/biren/{name}").unlink(missing_ok=True)
        (root / f"dev/biren/{name}").symlink_to(f"/dev/{name}")
    reader = DriverCardReader(root)
    reader.names()
    reader.read("card_0")

    def state_beside_a_late_read(host: Path, real: str) -> NodeState:
        reader.read("card_1")
        return node_state(host, real)

    monkeypatch.setattr(driver_cards, "node_state", state_beside_a_late_read)
    assert reader.due(5) is not None


def forbid(monkeypatch: pytest.MonkeyPatch, forbidden: str) -> None:
    """Let `os.stat` refuse what is below a path, as a security module refuses it to root."""
    stat = os.stat

    def refuse(path: str | os.PathLike[str] | int, **options: Any) -> os.stat_result:
        if str(path).startswith(forbidden):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", refuse)


def test_a_host_root_that_is_too_long_or_forbidden_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HostUnreadable, match="File name too long; see --host-root"):
        read_once(DriverCardReader(Path(f"/{'y' * 300}")))
    forbid(monkeypatch, str(tmp_path))
    with pytest.raises(HostUnreadable, match="Permission denied; see --host-root"):
        read_once(DriverCardReader(tmp_path))


def test_a_module_directory_that_is_forbidden_costs_no_card(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_once(DriverCardReader(host))
    forbid(monkeypatch, f"{host}/sys/module")
    snapshot = read_once(DriverCardReader(host))
    assert snapshot.cards == before.cards
    assert snapshot.module_loaded is None


def test_a_card_that_is_forbidden_is_not_gone(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [card.name for card in read_once(DriverCardReader(host)).cards]
    forbid(monkeypatch, f"{host}/sys/class/biren/{names[0]}")
    assert [card.name for card in read_once(DriverCardReader(host)).cards] == names
