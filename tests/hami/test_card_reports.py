"""HAMi's list of the node follows our verdicts, survives HAMi's restarts, and is taken back for good."""

import base64
import json

import pytest

from biren_plugin.core.model import Inventory
from biren_plugin.hami import card_reports
from tests.support.api_server import StandInApiServer
from tests.support.hami_books import Wish
from tests.support.hami_node import HamiNode, inventory_of, until
from tests.support.hami_scheduler import CARDS, HANDSHAKE


def healthy(node: HamiNode) -> list[str]:
    return [
        each["id"]
        for each in json.loads(node.scheduler.annotation(CARDS) or "[]")
        if each["health"]
    ]


async def test_cards_and_handshake_are_written_in_one_patch(node: HamiNode) -> None:
    async with node.registered():
        assert len([each for each in node.api.writes() if "nodes" in each[1]]) == 1
        assert node.scheduler.books is not None
        assert node.scheduler.books.order() == [f"card_{number}" for number in range(7, -1, -1)]


async def test_a_faulty_card_is_scheduled_to_nobody_and_returns_when_it_recovers(
    node: HamiNode,
) -> None:
    async with node.registered():
        node.see(inventory_of(range(8), 7))
        await until(lambda: "card_7" not in healthy(node))
        node.scheduler.tick()
        await node.run_pod("p1", Wish((1,)))
        assert node.containers["p1"] == [{"card_6"}]
        node.see(inventory_of(range(8)))
        await until(lambda: "card_7" in healthy(node))


async def test_the_last_card_leaves_as_a_faulty_one(node: HamiNode) -> None:
    async with node.registered():
        node.see(inventory_of([]))
        await until(lambda: not healthy(node))
        assert len(json.loads(node.scheduler.annotation(CARDS) or "")) == 8
        node.scheduler.tick()
        assert node.scheduler.run_pod("p1", Wish((1,))) == "no available node"


async def test_a_node_without_whole_cards_leaves_hamis_list(node: HamiNode) -> None:
    async with node.registered():
        node.see(Inventory())
        await until(lambda: node.scheduler.annotation(CARDS) is None)
        assert node.scheduler.annotation(HANDSHAKE) == "Requesting_2000-01-01 00:00:00"
        node.scheduler.tick()
        assert node.scheduler.books is None
        await until(lambda: not node.hami.registered)
        node.see(inventory_of(range(2)))
        await until(lambda: healthy(node) == ["card_0", "card_1"])


async def test_a_node_that_is_replaced_by_a_new_object_is_reported_at_once(node: HamiNode) -> None:
    async with node.registered():
        node.api.delete("/api/v1/nodes/n1")
        node.scheduler.add_node()
        await until(lambda: len(healthy(node)) == 8)


async def test_a_restarted_scheduler_knows_the_node_again_and_gives_no_card_twice(
    node: HamiNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card_reports, "INTERVAL", 0.1)
    async with node.registered():
        await node.run_pod("p1", Wish((4,)))
        await until(lambda: node.scheduler.lock is None)
        node.scheduler.restart()
        assert node.scheduler.run_pod("p2", Wish((1,))) == "node unregistered"
        await until(lambda: "Reported" in (node.scheduler.annotation(HANDSHAKE) or ""))
        node.scheduler.tick()
        assert node.scheduler.schedule("p2") == "bound"
        await node.admit("p2", Wish((1,)))
        assert node.containers["p2"] == [{"card_3"}]
        assert node.agrees()


async def test_conflicts_and_failures_are_tried_again(node: HamiNode) -> None:
    refusals = [(409, "conflict"), (409, "conflict"), (503, "starting"), (409, "conflict")]
    node.api.refuse = lambda method, _path: (
        refusals.pop() if method == "PATCH" and refusals else None
    )
    async with node.registered():
        assert len(healthy(node)) == 8


async def test_a_daemon_that_is_replaced_writes_nothing(node: HamiNode) -> None:
    async with node.registered():
        pass
    assert len(healthy(node)) == 8
    before = len(node.api.writes())
    async with node.running():
        await until(lambda: node.hami.registered)
    assert len(node.api.writes()) == before + 1


OWNED = {
    "metadata": {"ownerReferences": [{"kind": "DaemonSet", "name": "br-gpu-device-plugin"}]},
    "spec": {},
}
DAEMONSETS = "/apis/apps/v1/namespaces/biren-gpu/daemonsets"


@pytest.fixture
def as_pod(api: StandInApiServer) -> None:
    """The daemon's token is that of a pod of the DaemonSet."""
    about = {
        "node": {"name": "n1", "uid": "n"},
        "pod": {"name": "plugin", "uid": "p"},
        "namespace": "biren-gpu",
        "serviceaccount": {"name": "br-gpu-hami"},
    }
    claims = base64.urlsafe_b64encode(json.dumps({"kubernetes.io": about}).encode()).decode()
    api.token = f"e30.{claims.rstrip('=')}.sig"
    api.put("/api/v1/namespaces/biren-gpu/pods/plugin", OWNED)
    api.put(f"{DAEMONSETS}/br-gpu-device-plugin", {"spec": {"template": {"spec": {}}}})


@pytest.mark.usefixtures("as_pod")
async def test_a_node_whose_daemonset_is_deleted_leaves_hamis_list(
    node: HamiNode, api: StandInApiServer
) -> None:
    async with node.registered():
        pass
    assert len(healthy(node)) == 8, "another pod follows"
    async with node.running():
        await until(lambda: node.hami.registered)
        api.delete(f"{DAEMONSETS}/br-gpu-device-plugin")
    assert node.scheduler.annotation(CARDS) is None
    node.scheduler.tick()
    assert node.scheduler.books is None


async def test_a_right_that_is_missing_is_shown(node: HamiNode) -> None:
    node.scheduler.add_node()
    node.api.refuse = lambda method, _path: (
        (403, 'cannot patch "nodes"') if method == "PATCH" else None
    )
    async with node.running():
        await until(lambda: node.hami.trouble)
        assert 'cannot patch "nodes"' in node.hami.trouble
        assert not node.hami.registered
