"""The oracle of `soak` and of the daemon's tests, against hosts whose state is plain."""

from pathlib import Path

from biren_plugin.simulate.host import SimulatedHost
from tests.support.host_truth import cards_by_gpu, is_settled, truth

GPU = "birentech.com/gpu"


def test_splits_decide_the_resource(tmp_path: Path) -> None:
    host = SimulatedHost(tmp_path)
    host.add_gpus({0: 1, 1: 2})
    assert truth(tmp_path) == {
        GPU: {"card_0": True},
        "birentech.com/1-2-gpu": {"card_1": True, "card_2": True},
    }
    assert cards_by_gpu(tmp_path) == {0: ["card_0"], 1: ["card_1", "card_2"]}


def test_a_pulled_node_and_a_silent_function_are_faulty(tmp_path: Path) -> None:
    host = SimulatedHost(tmp_path)
    host.add_gpus({0: 1, 1: 1, 2: 1})
    host.pull_node("card_0")
    host.silence("card_1")
    assert truth(tmp_path) == {GPU: {"card_0": False, "card_1": False, "card_2": True}}


def test_a_gpu_in_the_middle_of_a_split_has_no_devices(tmp_path: Path) -> None:
    host = SimulatedHost(tmp_path)
    host.add_gpus({0: 1, 1: 4})
    host.remove_card("card_4")
    assert truth(tmp_path) == {GPU: {"card_0": True}}
    assert not is_settled(tmp_path)
