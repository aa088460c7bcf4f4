"""A node that switches between the two ways of offering cards gives no held card away."""

import pytest
import trio

from biren_plugin.commands.doctor.diagnosis import Verdict
from biren_plugin.commands.doctor.dra_checks import check_dra
from tests.kubelet.dra_manager import PrepareError
from tests.support.dra_node import DraNode, in_thread
from tests.support.node_in_process import GPU


@pytest.fixture
def node(idle_node: DraNode) -> DraNode:
    return idle_node


async def test_a_card_held_through_the_plugin_is_tainted_and_refused_until_its_pod_is_gone(
    node: DraNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("biren_plugin.dra.claim_service.PATIENCE", 0.0)
    node.held_by_plugin[GPU, "card_0"] = "team/old"
    async with node.running():
        await node.until(lambda: any(node.taints(each) for each in node.devices()))
        (held,) = [each for each in node.devices() if node.taints(each)]
        assert node.taints(held) == {"gpu.birentech.com/held-by-device-plugin": "NoSchedule"}
        claim = node.allocate("new", held)
        with pytest.raises(PrepareError, match="held by pod team/old"):
            await in_thread(lambda: node.kubelet.prepare("team/pod", claim))
        assert node.files() == {}
        node.held_by_plugin.clear()
        await node.until(lambda: not node.taints(held))
        assert await in_thread(lambda: node.kubelet.prepare("team/pod", claim))


async def test_nothing_is_prepared_before_the_kubelet_says_which_pods_hold_cards(
    node: DraNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.pod_resources.refuse("not yet")
    async with node.running():
        claim = node.allocate("new", next(iter(node.devices())))
        prepared = []

        async def prepare() -> None:
            prepared.append(await in_thread(lambda: node.kubelet.prepare("team/pod", claim)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(prepare)
            await node.until(lambda: ("GET", _path(claim)) in node.server.requests)
            assert not prepared
            assert node.files() == {}
            node.pod_resources.refuse(None)
        assert prepared


@pytest.mark.parametrize("what_is_left", ["file and belief", "belief alone", "file alone"])
async def test_a_card_held_by_a_claim_is_unhealthy_to_the_plugin_until_the_claim_is_released(
    node: DraNode, what_is_left: str
) -> None:
    whole = {f"card_{number}": True for number in range(2)}
    async with node.running():
        card = next(name for name in node.devices() if name.startswith("gpu-"))
        name = node.devices()[card]["attributes"]["card"]["string"]
        claim = node.allocate("old", card)
        await in_thread(lambda: node.kubelet.prepare("team/old", claim))
    (path,) = node.claim_dir.iterdir()
    if what_is_left == "belief alone":
        path.unlink()
    elif what_is_left == "file alone":
        node.kubelet.checkpoint.clear()
    node.pod_resources.start()
    async with node.node.running(claim_cdi_dir=node.claim_dir):
        await node.until(lambda: node.node.seen().get(GPU) == {**whole, name: False})
        (row,) = await in_thread(lambda: list(check_dra(node.node.settings)))
        assert row.verdict is Verdict.WARNING
        assert "pods stay Terminating until the driver is back" in row.advice
        path.unlink(missing_ok=True)
        node.kubelet.checkpoint.clear()
        await node.until(lambda: node.node.seen().get(GPU) == whole)
        assert await in_thread(lambda: list(check_dra(node.node.settings))) == []
    node.pod_resources.stop()


def _path(claim: tuple[str, str, str]) -> str:
    return f"/apis/resource.k8s.io/v1/namespaces/{claim[0]}/resourceclaims/{claim[1]}"
