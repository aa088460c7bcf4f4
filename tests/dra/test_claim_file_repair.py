"""The files of claims: lost ones come back while the kubelet believes in them, stale ones go."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio.testing

from biren_plugin.core.inventory import stale_claims
from biren_plugin.core.observed import RIGHT_AFTER
from biren_plugin.dra import claim_file_repair, offering
from biren_plugin.sources import holders
from tests.kubelet.dra_manager import PrepareError
from tests.support.dra_node import CLAIMS, DraNode, in_thread


async def prepared(node: DraNode, name: str, device: str) -> str:
    """The uid of a claim that is prepared for a pod."""
    claim = node.allocate(name, device)
    await in_thread(lambda: node.kubelet.prepare(f"team/{name}", claim))
    await node.until(lambda: node.pod_resources.asked.acquire(timeout=0))
    return claim[2]


@pytest.mark.parametrize("content", [None, "", "{", '{"devices": 3}', "[]"])
async def test_a_file_that_vanished_or_became_garbage_comes_back_without_the_api_server(
    node: DraNode, content: str | None
) -> None:
    uid = await prepared(node, "one", next(iter(node.devices())))
    before = node.files()
    (path,) = node.claim_dir.iterdir()
    node.server.refuse = lambda _method, _path: (503, "away")
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    await node.until(lambda: path.exists() and path.stat().st_size > 20)
    assert node.files() == before
    await in_thread(lambda: node.kubelet.unprepare("team/one", uid))
    assert node.files() == {}


async def test_a_file_that_vanishes_is_noticed_without_waiting_for_the_next_question(
    idle_node: DraNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holders, "INTERVAL", 3600.0)
    monkeypatch.setattr(offering, "AFTER_CLAIM", 0.0)
    monkeypatch.setattr(holders, "SOONER", 0.05)
    node = idle_node
    async with node.running():
        await prepared(node, "one", next(iter(node.devices())))
        await trio.sleep(4 * RIGHT_AFTER)  # the questions after Prepare are over
        (path,) = node.claim_dir.iterdir()
        path.unlink()
        await node.until(path.exists)


async def test_only_a_file_that_leaves_the_directory_is_noticed(tmp_path: Path) -> None:
    """In a directory that was deleted and created again, too."""
    directory = tmp_path / "cdi"
    noticed: list[int] = []
    mine = directory / "birentech.com-claim_uid-1.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claim_file_repair, "_ARM_AGAIN", 0.02)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(claim_file_repair.watch_files, directory, lambda: noticed.append(1))
            for _ in range(2):
                directory.mkdir(exist_ok=True)
                mine.write_text("{}")
                (directory / "another.json").write_text("{}")
                await trio.sleep(0.1)  # nothing is noticed, so there is nothing to wait for
                before = len(noticed)
                (directory / "another.json").unlink()
                mine.unlink()
                directory.rmdir()
                with trio.fail_after(10):
                    while len(noticed) == before:  # noqa: ASYNC110 - it is called from a task
                        await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert len(noticed) == 2


async def test_the_card_of_a_lost_file_is_not_given_to_another_claim(
    node: DraNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = next(iter(node.devices()))
    await prepared(node, "one", card)  # which may wait until the kubelet was asked for holders
    monkeypatch.setattr("biren_plugin.dra.claim_service.PATIENCE", 0.0)
    (path,) = node.claim_dir.iterdir()
    path.unlink()
    await node.until(path.exists)
    claim = node.allocate("two", card)
    with pytest.raises(PrepareError, match="still held by the claim with uid uid-one"):
        await in_thread(lambda: node.kubelet.prepare("team/two", claim))


@pytest.fixture
async def forgetful_node(
    idle_node: DraNode, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DraNode]:
    """The daemon and the kubelet run; a claim that the kubelet does not know is stale after half a second."""
    monkeypatch.setattr(stale_claims, "STALE_AFTER", 0.5)
    monkeypatch.setattr(holders, "INTERVAL", 0.2)
    async with idle_node.running():
        yield idle_node


async def test_a_file_whose_claim_the_kubelet_no_longer_knows_goes(
    forgetful_node: DraNode,
) -> None:
    node = forgetful_node
    first, second = list(node.devices())[:2]
    await prepared(node, "gone", first)
    await prepared(node, "there", second)
    node.kubelet.checkpoint.pop("uid-gone")
    await node.until(lambda: list(node.files()) == ["uid-there"])


async def test_a_file_stays_whose_claim_a_listed_pod_uses_all_the_same(
    forgetful_node: DraNode,
) -> None:
    node = forgetful_node
    uid = await prepared(node, "kept", next(iter(node.devices())))
    # As a kubelet shows the claim that lost its checkpoint.
    node.kubelet.checkpoint[uid]["devices"] = []
    asked = node.server.requests.count(("GET", f"{CLAIMS}/kept"))
    await node.until(lambda: node.server.requests.count(("GET", f"{CLAIMS}/kept")) > asked)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert list(node.files()) == [uid]
