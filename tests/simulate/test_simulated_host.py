"""A simulated host reads like a real one, after every change of the hardware."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.core.inventory.gpu_grouping import group_by_gpu
from biren_plugin.core.model import Snapshot
from biren_plugin.core.parse.card import NodeState
from biren_plugin.errors import UsageError
from biren_plugin.host.driver_cards import DriverCardReader
from biren_plugin.host.readers import read_once
from biren_plugin.simulate.host import GPU_MEMORY, MAX_GPUS, SimulatedHost, read_splits
from tests.support.examples import examples


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    return SimulatedHost(tmp_path / "host")


def read(host: SimulatedHost) -> Snapshot:
    return read_once(DriverCardReader(host.root, mount_host_path=True))


def gpus(look: Snapshot) -> dict[int, list[str]]:
    """Names of each GPU's cards, by number."""
    groups, strays = group_by_gpu(look.cards)
    assert not strays
    return {gpu: [card.name for card in cards] for gpu, cards in groups.items()}


@pytest.mark.parametrize(
    ("gpus", "svi", "splits"),
    [
        (1, "", {0: 1}),
        (3, "", {0: 1, 1: 1, 2: 1}),
        (3, "1:2,2:4", {0: 1, 1: 2, 2: 4}),
        (2, "0:1,1:4", {0: 1, 1: 4}),
        (2, "1:2,", {0: 1, 1: 2}),
    ],
)
def test_splits_are_read_from_the_command_line(gpus: int, svi: str, splits: dict[int, int]) -> None:
    assert read_splits(gpus, svi) == splits


@pytest.mark.parametrize("number", [-1, 0, MAX_GPUS + 1])
def test_number_of_gpus_has_bounds(number: int) -> None:
    with pytest.raises(UsageError, match=f"^--gpus {number}: give a number from 1 to {MAX_GPUS}$"):
        read_splits(number, "")


@pytest.mark.parametrize(
    ("svi", "says"),
    [
        ("1", "give GPU:INSTANCES"),
        ("1:", "give GPU:INSTANCES"),
        (":2", "give GPU:INSTANCES"),
        ("a:2", "give GPU:INSTANCES"),
        ("1:2:4", "give GPU:INSTANCES"),
        ("-1:2", "give GPU:INSTANCES"),
        ("8:2", "GPUs are 0 to 7"),
        ("1:3", "1, 2 or 4 instances"),
        ("1:0", "1, 2 or 4 instances"),
    ],
)
def test_a_wrong_split_is_refused_with_the_valid_values(svi: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_splits(8, svi)


@given(st.integers(), st.text(alphabet="0123456789:,-x", max_size=12))
def test_splits_are_right_or_refused(number: int, svi: str) -> None:
    try:
        splits = read_splits(number, svi)
    except UsageError:
        return
    assert list(splits) == list(range(number))
    assert set(splits.values()) <= {1, 2, 4}


def test_new_host_has_a_driver_and_no_card(host: SimulatedHost) -> None:
    look = read(host)
    assert look.cards == ()
    assert look.driver_loaded
    assert look.host.control_node
    assert len(look.host.mounts) == 5
    assert look.host.absent == ()


def test_gpus_are_numbered_in_order(host: SimulatedHost) -> None:
    host.add_gpus({0: 1, 1: 2, 2: 4})
    assert gpus(read(host)) == {
        0: ["card_0"],
        1: ["card_1", "card_2"],
        2: ["card_3", "card_4", "card_5", "card_6"],
    }


def test_cards_have_all_attributes_of_the_driver(host: SimulatedHost) -> None:
    host.add_gpus({0: 1, 4: 2})
    whole, half, _ = read(host).cards
    assert (whole.memory, half.memory) == (GPU_MEMORY * 1024, GPU_MEMORY * 1024 // 2)
    assert (whole.numa_node, half.numa_node) == (0, 1)
    assert whole.link.speed == whole.link.max_speed == 32.0
    assert whole.node is NodeState.CHARACTER_DEVICE


def test_instances_of_a_gpu_share_its_address_and_no_other_gpus(host: SimulatedHost) -> None:
    host.add_gpus(dict.fromkeys(range(0, MAX_GPUS, 5), 2))
    cards = read(host).cards
    addresses = {card.pci_address for card in cards}
    assert None not in addresses
    assert len(addresses) == len(cards) // 2


def test_a_node_can_be_pulled_and_put_back(host: SimulatedHost) -> None:
    host.add_gpus({0: 1, 1: 1})
    host.pull_node("card_0")
    host.pull_node("card_0")
    assert [card.node for card in read(host).cards] == [
        NodeState.MISSING,
        NodeState.CHARACTER_DEVICE,
    ]
    host.put_node_back("card_0")
    assert {card.node for card in read(host).cards} == {NodeState.CHARACTER_DEVICE}


def test_a_removed_card_does_not_affect_the_others_of_its_gpu(host: SimulatedHost) -> None:
    host.add_gpus({0: 4})
    host.remove_card("card_1")
    assert gpus(read(host)) == {0: ["card_0", "card_2", "card_3"]}


def test_a_new_split_gets_the_lowest_free_numbers(host: SimulatedHost) -> None:
    host.add_gpus({0: 2, 1: 1})
    assert host.split(0, 4) == ["card_0", "card_1", "card_3", "card_4"]


CHANGES = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 2, 4])), max_size=8)


@examples(30)
@given(CHANGES)
def test_a_reader_follows_every_change(changes: list[tuple[int, int]]) -> None:
    """A GPU is removed (0) or split; a reader that scans after each change sees the same as a new one."""
    with tempfile.TemporaryDirectory() as folder:
        host = SimulatedHost(Path(folder) / "host")
        reader = DriverCardReader(host.root)
        expected: dict[int, int] = {}
        for gpu, parts in changes:
            if parts:
                assert host.split(gpu, parts) == host.cards_of(gpu)
                expected[gpu] = parts
            elif gpu in expected:
                host.remove_gpu(gpu)
                del expected[gpu]
            look = read_once(reader)
            assert {gpu: len(names) for gpu, names in gpus(look).items()} == expected
            assert look == read_once(DriverCardReader(host.root))
            in_dev = {path.name for path in (host.root / "dev/biren").iterdir()}
            assert in_dev == {card.name for card in look.cards}
