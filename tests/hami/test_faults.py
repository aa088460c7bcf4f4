"""Whatever breaks between HAMi's choice and the lock's release, cards stay right and nothing stays locked."""

import logging
import threading

import pytest

from biren_plugin.errors import NotReady
from biren_plugin.hami import hami_mode, promised_cards
from tests.support.hami_books import Wish
from tests.support.hami_node import HamiNode, until
from tests.support.hami_scheduler import LOCK, PHASE, TO_ALLOCATE


async def test_a_pod_that_was_deleted_before_allocate_leaves_no_lock(node: HamiNode) -> None:
    async with node.registered():
        assert node.scheduler.run_pod("p1", Wish((1,))) == "bound"
        node.scheduler.delete("p1")
        await until(lambda: node.scheduler.lock is None)
        await node.run_pod("p2", Wish((1,)))
        assert node.agrees()


async def test_a_pod_that_was_created_again_under_its_name_leaves_no_lock(node: HamiNode) -> None:
    async with node.registered():
        assert node.scheduler.run_pod("p1", Wish((1,))) == "bound"
        node.scheduler.delete("p1")
        node.scheduler.create("p1", Wish((9,)))
        assert node.scheduler.schedule("p1") == "no available node"
        await until(lambda: node.scheduler.lock is None)
        await node.run_pod("p2", Wish((1,)))
        assert node.agrees()


async def test_a_pod_that_the_kubelet_refused_by_itself_leaves_no_lock(node: HamiNode) -> None:
    async with node.registered():
        assert node.scheduler.run_pod("p1", Wish((1,))) == "bound"
        node.scheduler.set_status("p1", phase="Failed", reason="OutOfbirentech.com/gpu")
        await until(lambda: node.scheduler.lock is None)
        assert node.scheduler.annotation(PHASE, "p1") == "failed"


async def test_a_refused_pod_has_failed_whatever_the_kubelet_reports_before_it_says_so(
    node: HamiNode,
) -> None:
    async with node.registered() as daemon:
        assert node.scheduler.run_pod("p1", Wish((1,))) == "bound"
        node.api.refuse = lambda method, _path: (503, "gone") if method != "GET" else None
        with pytest.raises(NotReady, match="HAMi promised card_7"):
            await node.plugin.allocate([["card_0"]])
        node.scheduler.set_status("p1", phase="Pending", startTime="now")
        node.api.refuse = lambda _method, _path: None
        daemon.cancel()  # whose end judges the lock that is left
    assert node.scheduler.lock is None
    assert node.scheduler.annotation(PHASE, "p1") == "failed"


async def test_a_daemon_that_was_killed_between_answer_and_release_leaves_the_lock_to_the_next(
    node: HamiNode,
) -> None:
    async with node.registered() as daemon:
        assert node.scheduler.run_pod("p1", Wish((1,))) == "bound"
        node.api.refuse = lambda method, _path: (503, "gone") if method != "GET" else None
        await node.admit("p1", Wish((1,)))
        daemon.cancel()
    assert node.scheduler.lock is not None
    node.api.refuse = lambda _method, _path: None
    async with node.running():
        await until(lambda: node.scheduler.lock is None)
        assert node.scheduler.annotation(PHASE, "p1") == "success"
        assert node.scheduler.annotation(TO_ALLOCATE, "p1") == ";"


async def test_a_daemon_that_was_killed_within_a_pods_admission_is_followed_by_the_next(
    node: HamiNode,
) -> None:
    wish = Wish((1, 2))
    async with node.registered() as daemon:
        assert node.scheduler.run_pod("p1", wish) == "bound"
        node.api.refuse = lambda method, _path: (503, "gone") if method != "GET" else None
        ids = await node._choose(1, set())
        node.kubelet["p1"] = [ids]
        node.containers["p1"] = [await node._allocate(ids)]
        daemon.cancel()
    node.api.refuse = lambda _method, _path: None
    async with node.running():
        ids = await node._choose(2, set())
        node.kubelet["p1"].append(ids)
        node.containers["p1"].append(await node._allocate(ids))
        assert node.agrees()
        await until(lambda: node.scheduler.lock is None)


async def test_a_daemon_that_stops_leaves_no_lock(node: HamiNode) -> None:
    async with node.registered():
        assert node.scheduler.run_pod("p1", Wish((1,))) == "bound"
        await until(lambda: node.hami.lock == "default/p1")
    assert node.scheduler.lock is None
    async with node.running():
        await node.admit("p1", Wish((1,)))
        assert node.agrees()


async def test_without_the_api_server_the_promised_cards_are_allocated_and_the_lock_goes_later(
    node: HamiNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with node.registered():
        assert node.scheduler.run_pod("p1", Wish((2,))) == "bound"
        await until(lambda: node.hami.lock == "default/p1" and node.mode._keeper.held is not None)
        node.api.refuse = lambda _method, _path: (503, "away")
        await node.admit("p1", Wish((2,)))
        assert node.agrees(), "the pod was seen before"
        await until(lambda: "are updated later" in caplog.text)
        assert node.scheduler.lock is not None
        node.api.refuse = lambda _method, _path: None
        await until(lambda: node.scheduler.lock is None)
        assert node.scheduler.annotation(PHASE, "p1") == "success"
        await until(lambda: "record of default/p1 are updated\n" in caplog.text)


async def test_an_api_server_that_was_away_all_the_time_keeps_no_pod_from_its_cards(
    node: HamiNode, caplog: pytest.LogCaptureFixture
) -> None:
    async with node.registered():
        await until(lambda: node.state.hami is not None)
        node.api.refuse = lambda _method, _path: (503, "away")
        assert node.scheduler.run_pod("p1", Wish((1,))) == "bound"
        node.mode._keeper.held = None
        await node.admit("p1", Wish((1,)))
        assert node.hami.containers == {"unasked": 1}
        assert "HAMi's choice is unknown" in caplog.text
        node.api.refuse = lambda _method, _path: None
        await until(lambda: node.scheduler.lock is None)


async def test_a_slow_api_server_delays_and_changes_nothing(node: HamiNode) -> None:
    never = threading.Event()
    async with node.registered():

        def slow(_method: str, _path: str) -> None:
            never.wait(0.2)

        node.api.refuse = slow
        await node.run_pod("p1", Wish((1, 2)))
        assert node.agrees()
        assert node.hami.containers == {"matched": 2}
        await until(lambda: node.scheduler.lock is None)
        assert node.scheduler.annotation(TO_ALLOCATE, "p1") == ";;"


async def test_an_api_server_that_hangs_costs_the_patience_and_no_more(
    node: HamiNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promised_cards, "PATIENCE", 0.1)
    async with node.registered():
        assert node.scheduler.run_pod("p1", Wish((1,))) == "bound"
        await until(lambda: node.mode._keeper.held is not None)
        node.api.hang = threading.Event()
        await node.admit("p1", Wish((1,)))
        assert node.agrees()
        node.api.hang.set()
        await until(lambda: node.scheduler.lock is None)


async def test_conflicts_on_the_node_do_not_keep_the_lock(node: HamiNode) -> None:
    async with node.registered():
        assert node.scheduler.run_pod("p1", Wish((1,))) == "bound"
        conflicts = [(409, "modified")] * 3

        def refuse(method: str, path: str) -> tuple[int, str] | None:
            return (
                conflicts.pop() if conflicts and (method, path[-3:]) == ("PATCH", "/n1") else None
            )

        node.api.refuse = refuse
        await node.admit("p1", Wish((1,)))
        await until(lambda: node.scheduler.lock is None)
        assert conflicts == []


async def test_the_lock_of_another_vendors_pod_stays(node: HamiNode) -> None:
    async with node.registered():
        node.scheduler.create("nvidia", Wish((0,)))
        node.scheduler.bind("nvidia")
        node.scheduler.set_status("nvidia", phase="Running", startTime="now")
        text = "2026-11-28T01:35:41Z,default,nvidia"
        node.api.annotate("/api/v1/nodes/n1", {LOCK: text})
        await until(lambda: node.hami.lock == "default/nvidia")
        reads = len(node.api.requests)
        await until(lambda: len(node.api.requests) > reads + 3)
        assert node.scheduler.lock == text
    assert node.scheduler.lock == text, "not even by a daemon that stops"


async def test_a_lock_that_names_no_pod_is_shown_and_left(
    node: HamiNode, caplog: pytest.LogCaptureFixture
) -> None:
    async with node.registered():
        node.api.annotate("/api/v1/nodes/n1", {LOCK: "a,b"})
        await until(lambda: "HAMi's lock on the node reads 'a,b'" in caplog.text)
        assert node.hami.lock == "a,b"
        caplog.set_level("INFO")
        node.api.annotate("/api/v1/nodes/n1", {LOCK: None})
        await until(lambda: "HAMi's lock on the node names a pod again, or is gone" in caplog.text)


async def test_a_pod_that_was_replaced_by_another_of_its_name_is_not_written(
    node: HamiNode,
) -> None:
    async with node.registered():
        assert node.scheduler.run_pod("p1", Wish((1,))) == "bound"
        hold = threading.Event()

        def refuse(method: str, path: str) -> tuple[int, str] | None:
            if method == "PATCH" and path.endswith("/p1"):
                hold.wait(10)
            return None

        node.api.refuse = refuse
        await node.admit("p1", Wish((1,)))
        node.scheduler.delete("p1")
        node.scheduler.create("p1", Wish((1,)))
        hold.set()
        await until(lambda: node.scheduler.lock is None)
        assert node.scheduler.annotation(PHASE, "p1") is None


async def test_an_api_server_that_hangs_at_the_end_does_not_hold_the_daemon_up(
    node: HamiNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hami_mode, "FAREWELL", 0.1)
    async with node.registered():
        node.api.hang = threading.Event()
    assert "HAMi's lock on the node may stay: no answer in 0.1 s" in caplog.text
    node.api.hang.set()


@pytest.mark.parametrize("status", [403, 422, 500])
async def test_a_pod_whose_annotations_are_refused_holds_up_no_other_and_leaves_no_lock(
    node: HamiNode, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """A policy or a webhook of the cluster may refuse each change to one pod."""
    async with node.registered():
        node.api.refuse = lambda method, path: (
            (status, "denied by a policy") if (method, path[-3:]) == ("PATCH", "/p1") else None
        )
        node.scheduler.create("p1", Wish((1,)))
        node.api.refuse, refuse = lambda _method, _path: None, node.api.refuse
        assert node.scheduler.schedule("p1") == "bound"
        node.api.refuse = refuse
        await node.admit("p1", Wish((1,)))
        await until(lambda: node.scheduler.lock is None)
        await node.run_pod("p2", Wish((2,)))
        await until(lambda: node.scheduler.lock is None)
        assert node.scheduler.annotation(PHASE, "p2") == "success"
        assert node.agrees()
        said = (
            "are updated later" if status == 500 else "HAMi's record of default/p1 stays as it is"
        )
        assert caplog.text.count(said) == 1
        assert "denied by a policy" in caplog.text


async def test_the_lock_of_a_failed_pod_whose_annotations_are_refused_goes(node: HamiNode) -> None:
    async with node.registered():
        assert node.scheduler.run_pod("p1", Wish((1,))) == "bound"
        node.scheduler.set_status("p1", phase="Failed", reason="OutOfbirentech.com/gpu")
        node.api.refuse = lambda method, path: (
            (403, "denied") if (method, path[-3:]) == ("PATCH", "/p1") else None
        )
        await until(lambda: node.scheduler.lock is None)


async def test_a_daemon_that_stops_releases_the_lock_of_a_pod_whose_annotations_are_refused(
    node: HamiNode,
) -> None:
    async with node.registered():
        assert node.scheduler.run_pod("p1", Wish((1,))) == "bound"
        await until(lambda: node.hami.lock == "default/p1")
        node.api.refuse = lambda method, path: (
            (422, "denied") if (method, path[-3:]) == ("PATCH", "/p1") else None
        )
    assert node.scheduler.lock is None
