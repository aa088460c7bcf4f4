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
    """A registration at 0 s, and its observations; each observation is a second later than the last."""

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


def test_a_kubelet_that_reports_the_sent_list_shows_no_rival() -> None:
    node = Node()
    assert [node.look() for _ in range(5)] == [None] * 5


def test_the_kubelet_may_report_an_unhealthy_device_or_leave_it_out() -> None:
    node = Node(devices=SICK)
    for believed in (frozenset({"card_0"}), OURS) * 3:
        assert node.look(believed=believed) is None


def test_devices_that_were_not_sent_show_a_rival_if_its_socket_appeared_since() -> None:
    node = Node()
    node.look()
    assert node.look(VENDOR, frozenset({"card_4"})) is None, "one answer may be an old one"
    found = node.look(VENDOR, frozenset({"card_4"}))
    assert isinstance(found, Rival)
    assert found.sockets == ("vendor.sock",)
    assert found.certain
    assert "vendor.sock" in found.describe(GPU)
    assert "offers 1 (card_4) and was sent 2 (card_0, card_1)" in found.why


def test_an_answer_from_before_the_last_list_does_not_count() -> None:
    node = Node()
    for _ in range(10):
        node.sent_at = node.now + 1.5 - SETTLE  # just sent when the kubelet answers
        assert node.look(VENDOR, frozenset({"card_4"})) is None


def test_differing_answers_must_follow_each_other() -> None:
    node = Node()
    for believed in (frozenset({"card_4"}), OURS) * 5:
        assert node.look(VENDOR, believed) is None


def test_the_same_answer_is_not_counted_twice() -> None:
    node = Node()
    view = KubeletView(5.0, {}, {GPU: frozenset({"card_4"})})
    for _ in range(5):
        assert node.judge.judge(Seen(VENDOR, Sent(DEVICES, 0.0), view), 5.0) is None
    assert node.judge.is_doubtful


def test_a_held_card_that_this_plugin_did_not_allocate_shows_a_rival() -> None:
    node = Node()
    node.look()
    found = node.look(VENDOR, held={"card_0": "train"})
    assert isinstance(found, Rival)
    assert found.why == "pod default/train holds card_0, which this plugin did not allocate"


def test_a_held_card_that_this_plugin_allocated_shows_no_rival() -> None:
    node = Node()
    node.look(VENDOR)
    node.memory.allocated(["card_0"])
    assert [node.look(VENDOR, held={"card_0": "train"}) for _ in range(5)] == [None] * 5


def test_an_allocation_explains_one_pod_and_not_the_next_one() -> None:
    node = Node()
    node.look(VENDOR)
    node.memory.allocated(["card_0"])
    assert node.look(VENDOR, held={"card_0": "train"}) is None
    assert node.look(VENDOR) is None
    assert isinstance(node.look(VENDOR, held={"card_0": "other"}), Rival)


def test_a_pod_from_before_the_registration_shows_no_rival() -> None:
    node = Node()
    assert [node.look(VENDOR, held={"card_0": "train"}) for _ in range(5)] == [None] * 5
    assert node.look(VENDOR) is None
    found = node.look(VENDOR, held={"card_0": "other"})
    assert isinstance(found, Rival), "the card is free, and then another pod has it"


def test_a_card_of_another_resource_shows_no_rival() -> None:
    node = Node()
    node.look()
    node.now += 1
    view = KubeletView(node.now, {("birentech.com/1-2-gpu", "card_0"): Holder("a", "b")}, None)
    sent = Sent(DEVICES, 0.0)
    assert node.judge.judge(Seen({}, sent, attrs.evolve(view, allocatable={GPU: OURS})), 9) is None


@pytest.mark.parametrize("believed", [OURS, None])
def test_a_new_socket_with_a_biren_plugins_name_is_a_rival_at_once(
    believed: frozenset[str] | None,
) -> None:
    found = Node().look({"biren-gpu.sock": "file 1"}, believed)
    assert isinstance(found, Rival)
    assert found.certain


def test_a_new_socket_may_be_a_rival_if_the_kubelet_reports_no_devices() -> None:
    found = Node().look(VENDOR, believed=None)
    assert isinstance(found, Rival)
    assert not found.certain
    assert "may have taken it" in found.describe(GPU)
    assert "pod-resources" in found.describe(GPU)
    assert Node().look(VENDOR) is None, "a kubelet that tells has the last word"


def test_a_possible_rival_is_dismissed_once_the_kubelet_agrees() -> None:
    node = Node()
    assert isinstance(node.look(VENDOR, believed=None), Rival)
    assert node.look(VENDOR) is None


def test_a_possible_rival_is_certain_once_the_kubelet_disagrees() -> None:
    node = Node()
    node.look(VENDOR, believed=None)
    node.look(VENDOR, frozenset({"card_4"}))
    found = node.look(VENDOR, frozenset({"card_4"}))
    assert isinstance(found, Rival)
    assert found.certain


def test_the_judgement_waits_for_the_kubelets_first_answer() -> None:
    node = Node()
    assert node.judge.judge(Seen(VENDOR, Sent(DEVICES, 0.0), None), 1.0) is None


def test_a_socket_from_before_the_registration_is_a_neighbour() -> None:
    node = Node()
    node.register(VENDOR)
    assert node.look(VENDOR, believed=None) is None


def test_a_neighbour_that_returns_after_a_kubelet_restart_is_a_neighbour() -> None:
    node = Node()
    node.register(VENDOR)
    node.register()
    assert node.look({"vendor.sock": "file 2"}, believed=None) is None


def test_a_rival_is_left_alone_until_its_socket_has_gone() -> None:
    node = Node()
    other = frozenset({"card_4"})
    found = [node.look(VENDOR, other) for _ in range(10)][-1]
    assert isinstance(found, Rival)
    lost = node.look({}, other)
    assert isinstance(lost, Lost)
    assert lost.why == "no process serves vendor.sock any more"


def test_a_killed_rival_is_gone_even_though_its_socket_remains() -> None:
    node = Node()
    node.look({"biren.sock": "file 1"})
    assert isinstance(node.look({"biren.sock": "file 1"}, unserved=("biren.sock",)), Lost)


def test_a_rival_whose_stream_ended_is_gone_even_though_it_serves() -> None:
    node = Node()
    node.look({"biren.sock": "file 1"})
    assert isinstance(node.look({"biren.sock": "file 1"}, frozenset()), Rival)
    lost = node.look({"biren.sock": "file 1"}, frozenset())
    assert isinstance(lost, Lost)
    assert "stopped the endpoint" in lost.why


def test_a_kubelet_without_healthy_devices_has_lost_the_registration_in_any_case() -> None:
    node = Node()
    node.look(VENDOR, frozenset())
    assert isinstance(node.look(VENDOR, frozenset()), Lost)


def test_a_resource_without_a_healthy_device_is_not_lost() -> None:
    node = Node(devices=DeviceList(GPU, tuple(each.because("gone") for each in DEVICES.devices)))
    assert [node.look(believed=frozenset()) for _ in range(5)] == [None] * 5


def test_without_a_new_socket_a_difference_is_first_a_lost_registration_and_then_a_rival() -> None:
    node = Node()
    found = []
    for _ in range(ENDS):
        node.register(VENDOR)
        node.look(VENDOR, frozenset({"card_4"}))
        found.append(node.look(VENDOR, frozenset({"card_4"})))
    assert [type(each) for each in found] == [Lost] * (ENDS - 1) + [Rival]
    assert [each.sockets for each in found if isinstance(each, Rival)] == [("vendor.sock",)]


def test_without_any_foreign_socket_a_difference_is_always_a_lost_registration() -> None:
    node = Node()
    for _ in range(ENDS * 2):
        node.register()
        node.look(believed=frozenset({"card_4"}))
        assert isinstance(node.look(believed=frozenset({"card_4"})), Lost)


def test_registrations_lost_far_apart_suggest_no_rival() -> None:
    memory = RivalMemory()
    assert not any(memory.lost(100 + now * WITHIN) for now in range(10))
    assert [memory.lost(10_000 + now) for now in range(ENDS)] == [False] * (ENDS - 1) + [True]


def test_pods_from_a_rivals_time_do_not_count_for_the_next_registration() -> None:
    node = Node()
    node.look()
    assert isinstance(node.look(VENDOR, held={"card_0": "train"}), Rival)
    node.register()
    assert [node.look(held={"card_0": "train"}) for _ in range(5)] == [None] * 5


def test_several_ended_streams_in_a_short_time_suggest_a_rival() -> None:
    memory = RivalMemory()
    found = [memory.stream_ended(now, KUBELET) for now in range(ENDS)]
    assert found == [False] * (ENDS - 1) + [True]


def test_ended_streams_far_apart_do_not_suggest_a_rival() -> None:
    memory = RivalMemory()
    assert not any(memory.stream_ended(now * WITHIN, KUBELET) for now in range(10))


def test_old_ended_streams_are_forgotten() -> None:
    memory = RivalMemory()
    memory.stream_ended(0, KUBELET)
    memory.stream_ended(1, KUBELET)
    assert not memory.stream_ended(WITHIN + 0.5, KUBELET)
    assert memory.stream_ended(WITHIN + 0.6, KUBELET)


def test_a_new_kubelet_resets_the_count() -> None:
    memory = RivalMemory()
    assert not any(memory.stream_ended(now, f"life {now // 2}") for now in range(10))


def test_an_answer_without_devices_ends_a_row_of_differing_answers() -> None:
    node = Node()
    for believed in (frozenset({"card_4"}), None) * 5:
        assert node.look(believed=believed) is None


def test_pods_that_an_early_answer_left_out_show_no_rival() -> None:
    """For up to a second, a kubelet that has just started lists no pod."""
    node = Node()
    node.now = SETTLE / 2 - 1
    assert node.look(VENDOR) is None
    assert node.look(VENDOR, held={"card_0": "train"}) is None
