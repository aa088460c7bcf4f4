"""A rival is suspected when a living kubelet ends stream after stream, and not sooner."""

from biren_plugin.core.rivals import ENDS, WITHIN, RivalWatch

KUBELET = "one life"


def test_a_rival_is_suspected_after_some_ends_in_a_short_time() -> None:
    watch = RivalWatch()
    assert [watch.stream_ended(now, KUBELET) for now in range(ENDS)] == [False] * (ENDS - 1) + [
        True
    ]


def test_ends_far_apart_are_no_rival() -> None:
    watch = RivalWatch()
    assert not any(watch.stream_ended(now * WITHIN, KUBELET) for now in range(10))


def test_old_ends_are_forgotten() -> None:
    watch = RivalWatch()
    watch.stream_ended(0, KUBELET)
    watch.stream_ended(1, KUBELET)
    assert not watch.stream_ended(WITHIN + 0.5, KUBELET)
    assert watch.stream_ended(WITHIN + 0.6, KUBELET)


def test_a_new_kubelet_clears_the_slate() -> None:
    watch = RivalWatch()
    assert not any(watch.stream_ended(now, f"life {now // 2}") for now in range(10))
