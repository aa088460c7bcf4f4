"""A container gets what its cards need, in card order; a container without cards gets nothing."""

from biren_plugin.core.container_edits import ContainerEdits, edits_for
from biren_plugin.core.model import HostFacts, Mount
from tests.support.cards import card

MOUNTS = (Mount("/usr/local/lib/libbiren-ml.so.1.12.0", "/opt/birentech/lib/libbiren-ml.so"),)


def test_a_container_gets_its_cards_nodes_and_names() -> None:
    assert edits_for([card(0), card(1)], HostFacts()) == ContainerEdits(
        env=(("BR_PHY_CARDS", "card_0,card_1"),),
        device_nodes=("/dev/biren/card_0", "/dev/biren/card_1"),
    )


def test_cards_are_ordered_by_number_whatever_the_request() -> None:
    edits = edits_for([card(10), card(2), card(0)], HostFacts())
    assert dict(edits.env) == {"BR_PHY_CARDS": "card_0,card_2,card_10"}
    assert edits.device_nodes == tuple(f"/dev/biren/card_{number}" for number in (0, 2, 10))


def test_the_control_node_is_added_if_the_host_has_one() -> None:
    edits = edits_for([card(0)], HostFacts(control_node=True))
    assert edits.device_nodes == ("/dev/biren/card_0", "/dev/biren-m")


def test_the_render_node_and_driver_files_are_added_if_requested() -> None:
    edits = edits_for([card(0)], HostFacts(dri_node="/dev/dri/renderD129", mounts=MOUNTS))
    assert edits.device_nodes == ("/dev/biren/card_0", "/dev/dri/renderD129")
    assert edits.mounts == MOUNTS


def test_indexes_are_those_that_the_container_counts() -> None:
    edits = edits_for([card(10), card(3)], HostFacts(), "index")
    assert edits.env == (("BR_PHY_CARDS", "card_3,card_10"), ("BIREN_VISIBLE_DEVICES", "0,1"))


def test_a_container_without_cards_gets_nothing_of_the_host() -> None:
    host = HostFacts(control_node=True, dri_node="/dev/dri/renderD129", mounts=MOUNTS)
    assert edits_for([], host) == ContainerEdits()
