"""A lock goes as soon as its pod needs it no more, and another vendor's lock is left alone."""

from typing import Any

import pytest

from biren_plugin.core.hami.annotations import Lock
from biren_plugin.core.hami.leftover_lock import Keep, Release, fate_at_end, fate_of

LOCK = Lock("2026-11-28T01:35:41Z,default,p1", "default", "p1")


def pod(phase: str = "Pending", bind_phase: str = "allocating", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "p1",
            "namespace": "default",
            "uid": "uid-1",
            "annotations": {
                "hami.io/vgpu-node": "n1",
                "hami.io/Biren-devices-to-allocate": "card_7,Biren,0,0:;",
                "hami.io/bind-phase": bind_phase,
            },
        },
        "spec": {"nodeName": "n1"},
        "status": {"phase": phase, **status},
    }


def test_a_pod_that_waits_keeps_its_lock() -> None:
    assert isinstance(fate_of(LOCK, pod(), "n1"), Keep)


@pytest.mark.parametrize(
    ("found", "phase"),
    [
        (None, "success"),
        (pod("Failed"), "failed"),
        (pod("Running"), "success"),
        (pod("Succeeded"), "success"),
        (pod(startTime="2026-11-28T01:35:42Z"), "success"),
        (pod(bind_phase="success"), "success"),
    ],
)
def test_a_lock_whose_pod_needs_it_no_more_goes(found: dict[str, Any] | None, phase: str) -> None:
    fate = fate_of(LOCK, found, "n1")
    assert isinstance(fate, Release)
    assert fate.phase == phase


def test_another_vendors_lock_stays_even_at_the_end() -> None:
    other = pod("Running")
    del other["metadata"]["annotations"]["hami.io/Biren-devices-to-allocate"]
    for fate in (fate_of(LOCK, other, "n1"), fate_at_end(LOCK, other, "n1")):
        assert isinstance(fate, Keep)
        assert fate.promise is None


def test_a_daemon_that_stops_leaves_no_lock() -> None:
    fate = fate_at_end(LOCK, pod(), "n1")
    assert isinstance(fate, Release)
    assert fate.promise is None, "its pod still waits for its cards"


def test_a_pod_for_which_hami_chose_another_node_since_needs_no_lock_here() -> None:
    assert isinstance(fate_of(LOCK, pod(), "n2"), Release)


def test_a_new_pod_of_the_locks_name_that_hami_has_placed_nowhere_needs_no_lock() -> None:
    """A StatefulSet creates its pod again under its name: waiting for room, it would hold the lock."""
    new = {"metadata": {"name": "p1"}, "spec": {}, "status": {"phase": "Pending"}}
    assert isinstance(fate_of(LOCK, new, "n1"), Release)
    bound = new | {"spec": {"nodeName": "n1"}}
    assert fate_of(LOCK, bound, "n1") == Keep("default/p1 has no Biren card on this node")
