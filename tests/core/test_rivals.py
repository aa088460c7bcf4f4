"""A registration counts until the kubelet, its pods or its directory show that another plugin has it."""

import attrs
import pytest

from biren_plugin.core.model import Device, DeviceList
from biren_plugin.core.observed import Holder, KubeletView
from biren_plugin.core.parse.card import Card
from biren_plugin.core.rivals import (
    ENDS,
    SETTLE,
    WITHIN,
    Lost,
    RegistrationJudge,
    Rival,
    RivalMemory,
    Seen,
    Sent,
)

KUBELET = "one life"
GPU = "birentech.com/gpu"
OURS = frozenset({"card_0", "card_1"})
DEVICES = DeviceList(GPU, tuple(Device(Card(name, 0), GPU) for name in sorted(OURS)))
SICK = DeviceList(GPU, (DEVICES.devices[0], DEVICES.devices[1].because("its node is missing")))
VENDOR = {"vendor.sock": "file 1"}


@attrs.define
class Node:
    """A registration at 0 s, and what is seen of it; each look is a second later than the last."""

    memory: RivalMemory = attrs.Factory(RivalMemory)
    now: float = 0.0
    devices: DeviceList = DEVICES
    sent_at: float = 0.0
    judge: RegistrationJudge = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.register()

    def register(self, foreign: dict[str, str] | None = None) -> None:
        self.memory.registering(foreign or {})
        self.sent_at = self.now
        self.judge = RegistrationJudge(GPU, self.memory, self.now)

    def look(
        self,
        foreign: dict[str, str] | None = None,
        believed: frozenset[str] | None = OURS,
        held: dict[str, str] | None = None,
        unserved: tuple[str, ...] = (),
    ) -> Rival | Lost | None:
        self.now += 1
        holders = {(GPU, id_): Holder("default", pod) for id_, pod in (held or {}).items()}
        allocatable = None if believed is None else {GPU: believed}
        view = KubeletView(self.now, holders, allocatable)
        sent = Sent(self.devices, self.sent_at)
        return self.judge.judge(Seen(foreign or {}, sent, view, unserved), self.now)


def test_kubelet_that_believes_what_was_sent_has_no_rival() -> None:
    node = Node()
    assert [node.look() for _ in range(5)] == [None] * 5


def test_unhealthy_device_may_be_left_out_or_named_by_the_kubelet() -> None:
    node = Node(devices=SICK)
    for believed in (frozenset({"card_0"}), OURS) * 3:
        assert node.look(believed=believed) is None


def test_other_devices_than_were_sent_are_a_rivals_when_its_socket_appeared_since() -> None:
    node = Node()
    node.look()
    assert node.look(VENDOR, frozenset({"card_4"})) is None, "one answer may be an old one"
    found = node.look(VENDOR, frozenset({"card_4"}))
    assert isinstance(found, Rival)
    assert found.sockets == ("vendor.sock",)
    assert found.certain
    assert "vendor.sock" in found.describe(GPU)
    assert "offers 1 (card_4) and was sent 2 (card_0, card_1)" in found.why


def test_answer_from_before_the_last_list_does_not_count() -> None:
    node = Node()
    for _ in range(10):
        node.sent_at = node.now + 1.5 - SETTLE  # just sent when the kubelet answers
        assert node.look(VENDOR, frozenset({"card_4"})) is None


def test_answers_that_differ_must_follow_each_other() -> None:
    node = Node()
    for believed in (frozenset({"card_4"}), OURS) * 5:
        assert node.look(VENDOR, believed) is None


def test_the_same_answer_is_not_counted_twice() -> None:
    node = Node()
    view = KubeletView(5.0, {}, {GPU: frozenset({"card_4"})})
    for _ in range(5):
        assert node.judge.judge(Seen(VENDOR, Sent(DEVICES, 0.0), view), 5.0) is None
    assert node.judge.is_doubtful


def test_card_that_this_plugin_did_not_allocate_shows_a_rival() -> None:
    node = Node()
    node.look()
    found = node.look(VENDOR, held={"card_0": "train"})
    assert isinstance(found, Rival)
    assert found.why == "pod default/train holds card_0, which this plugin did not allocate"


def test_card_that_this_plugin_allocated_shows_nothing() -> None:
    node = Node()
    node.look(VENDOR)
    node.memory.allocated(["card_0"])
    assert [node.look(VENDOR, held={"card_0": "train"}) for _ in range(5)] == [None] * 5


def test_pod_that_held_its_card_before_the_registration_shows_nothing() -> None:
    node = Node()
    assert [node.look(VENDOR, held={"card_0": "train"}) for _ in range(5)] == [None] * 5
    assert node.look(VENDOR) is None
    found = node.look(VENDOR, held={"card_0": "other"})
    assert isinstance(found, Rival), "the card is free, and then another pod has it"


def test_card_of_another_resource_shows_nothing() -> None:
    node = Node()
    node.look()
    node.now += 1
    view = KubeletView(node.now, {("birentech.com/1-2-gpu", "card_0"): Holder("a", "b")}, None)
    sent = Sent(DEVICES, 0.0)
    assert node.judge.judge(Seen({}, sent, attrs.evolve(view, allocatable={GPU: OURS})), 9) is None


@pytest.mark.parametrize("believed", [OURS, None])
def test_new_socket_with_the_name_of_a_biren_plugin_is_a_rival_at_once(
    believed: frozenset[str] | None,
) -> None:
    found = Node().look({"biren-gpu.sock": "file 1"}, believed)
    assert isinstance(found, Rival)
    assert found.certain


def test_new_socket_of_any_name_may_be_a_rival_if_the_kubelet_does_not_tell() -> None:
    found = Node().look(VENDOR, believed=None)
    assert isinstance(found, Rival)
    assert not found.certain
    assert "may have taken it" in found.describe(GPU)
    assert "pod-resources" in found.describe(GPU)
    assert Node().look(VENDOR) is None, "a kubelet that tells has the last word"


def test_possible_rival_is_none_once_the_kubelet_tells_and_agrees() -> None:
    node = Node()
    assert isinstance(node.look(VENDOR, believed=None), Rival)
    assert node.look(VENDOR) is None


def test_possible_rival_is_certain_once_the_kubelet_tells_otherwise() -> None:
    node = Node()
    node.look(VENDOR, believed=None)
    node.look(VENDOR, frozenset({"card_4"}))
    found = node.look(VENDOR, frozenset({"card_4"}))
    assert isinstance(found, Rival)
    assert found.certain


def test_kubelet_that_was_not_asked_yet_is_waited_for() -> None:
    node = Node()
    assert node.judge.judge(Seen(VENDOR, Sent(DEVICES, 0.0), None), 1.0) is None


def test_socket_that_was_there_before_the_registration_is_a_neighbour() -> None:
    node = Node()
    node.register(VENDOR)
    assert node.look(VENDOR, believed=None) is None


def test_neighbour_that_comes_again_after_a_kubelet_restart_is_a_neighbour() -> None:
    node = Node()
    node.register(VENDOR)
    node.register()
    assert node.look({"vendor.sock": "file 2"}, believed=None) is None


def test_rival_is_left_alone_while_it_is_there_and_lost_when_its_socket_has_gone() -> None:
    node = Node()
    other = frozenset({"card_4"})
    found = [node.look(VENDOR, other) for _ in range(10)][-1]
    assert isinstance(found, Rival)
    lost = node.look({}, other)
    assert isinstance(lost, Lost)
    assert lost.why == "nobody serves vendor.sock any more"


def test_rival_that_was_killed_leaves_its_socket_and_is_gone_all_the_same() -> None:
    node = Node()
    node.look({"biren.sock": "file 1"})
    assert isinstance(node.look({"biren.sock": "file 1"}, unserved=("biren.sock",)), Lost)


def test_rival_whose_stream_ended_is_gone_although_it_serves() -> None:
    node = Node()
    node.look({"biren.sock": "file 1"})
    assert isinstance(node.look({"biren.sock": "file 1"}, frozenset()), Rival)
    lost = node.look({"biren.sock": "file 1"}, frozenset())
    assert isinstance(lost, Lost)
    assert "stopped the endpoint" in lost.why


def test_kubelet_that_believes_nothing_healthy_has_lost_the_registration_whoever_is_there() -> None:
    node = Node()
    node.look(VENDOR, frozenset())
    assert isinstance(node.look(VENDOR, frozenset()), Lost)


def test_resource_without_a_healthy_device_is_not_lost() -> None:
    node = Node(devices=DeviceList(GPU, tuple(each.because("gone") for each in DEVICES.devices)))
    assert [node.look(believed=frozenset()) for _ in range(5)] == [None] * 5


def test_difference_without_a_socket_that_is_new_is_a_lost_registration_and_then_a_rival() -> None:
    node = Node()
    found = []
    for _ in range(ENDS):
        node.register(VENDOR)
        node.look(VENDOR, frozenset({"card_4"}))
        found.append(node.look(VENDOR, frozenset({"card_4"})))
    assert [type(each) for each in found] == [Lost] * (ENDS - 1) + [Rival]


def test_difference_without_any_other_socket_is_a_lost_registration_however_often() -> None:
    node = Node()
    for _ in range(ENDS * 2):
        node.register()
        node.look(believed=frozenset({"card_4"}))
        assert isinstance(node.look(believed=frozenset({"card_4"})), Lost)


def test_pods_of_the_time_of_a_rival_show_nothing_to_the_next_registration() -> None:
    node = Node()
    node.look()
    assert isinstance(node.look(VENDOR, held={"card_0": "train"}), Rival)
    node.register()
    assert [node.look(held={"card_0": "train"}) for _ in range(5)] == [None] * 5


def test_a_rival_is_suspected_after_some_ends_in_a_short_time() -> None:
    memory = RivalMemory()
    found = [memory.stream_ended(now, KUBELET) for now in range(ENDS)]
    assert found == [False] * (ENDS - 1) + [True]


def test_ends_far_apart_are_no_rival() -> None:
    memory = RivalMemory()
    assert not any(memory.stream_ended(now * WITHIN, KUBELET) for now in range(10))


def test_old_ends_are_forgotten() -> None:
    memory = RivalMemory()
    memory.stream_ended(0, KUBELET)
    memory.stream_ended(1, KUBELET)
    assert not memory.stream_ended(WITHIN + 0.5, KUBELET)
    assert memory.stream_ended(WITHIN + 0.6, KUBELET)


def test_a_new_kubelet_clears_the_slate() -> None:
    memory = RivalMemory()
    assert not any(memory.stream_ended(now, f"life {now // 2}") for now in range(10))
