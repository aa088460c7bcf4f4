"""The stored slices become the wanted ones and stay so, whatever the API server or anybody does."""

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.cluster.api_server import ApiServer
from biren_plugin.cluster.credentials import Access, PodCredentials
from biren_plugin.cluster.object_watch import Objects, watch_objects
from biren_plugin.core.dra.pool import Pool
from biren_plugin.core.dra.slice_writes import Owner
from biren_plugin.dra import offering
from biren_plugin.dra.slice_publisher import PATH, Published, SlicePublisher, selection
from biren_plugin.errors import ApiError, ApiForbidden, ApiUnreachable
from tests.support.api_server import StandInApiServer, stand_in_api_server

OWNER = Owner("node-7", "uid-7")


def pool(*names: str, taint: str = "") -> Pool:
    taints = (
        {"taints": [{"key": f"gpu.birentech.com/{taint}", "effect": "NoSchedule"}]} if taint else {}
    )
    return Pool(slices=(tuple({"name": name, **taints} for name in names),))


@pytest.fixture
def server() -> Iterator[StandInApiServer]:
    with stand_in_api_server() as running:
        yield running


class Publishing:
    """The publisher of one node, with the watch that wakes it."""

    def __init__(self, api: ApiServer) -> None:
        self.pools = Board[Pool]()
        self.stored = Board[Objects]()
        self.publisher = SlicePublisher(api, OWNER)
        self.api = api

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_objects, self.api, PATH, selection("node-7"), self.stored)
            nursery.start_soon(self.publisher.run, self.pools, self.stored)

    async def until(self, server: StandInApiServer, *names: str) -> None:
        """Waits until these devices are stored, in one slice."""
        await server_shows(
            lambda: (
                [[d["name"] for d in s["spec"]["devices"]] for s in server.slices()]
                == [list(names)]
            )
        )


async def server_shows(is_so: Callable[[], bool]) -> None:
    """Waits for what another thread does."""
    with trio.fail_after(5):
        while not is_so():  # noqa: ASYNC110 - it is another thread's state, not an event
            await trio.sleep(0.005)


@pytest.fixture
async def publishing(server: StandInApiServer, tmp_path: Path) -> AsyncIterator[Publishing]:
    api = ApiServer(PodCredentials(server.account(tmp_path), tmp_path).load)
    yield Publishing(api)
    await api.close()


async def test_slices_follow_the_pool_and_come_back_when_they_are_deleted(
    server: StandInApiServer, publishing: Publishing, nursery: trio.Nursery
) -> None:
    nursery.start_soon(publishing.run)
    publishing.pools.post(pool("a", "b"))
    await publishing.until(server, "a", "b")
    publishing.pools.post(pool("a"))
    await publishing.until(server, "a")
    server.delete(f"{PATH}/{server.slices()[0]['metadata']['name']}")
    await publishing.until(server, "a")
    nursery.cancel_scope.cancel()


async def test_what_stays_the_same_is_not_written(
    server: StandInApiServer, publishing: Publishing, nursery: trio.Nursery
) -> None:
    nursery.start_soon(publishing.run)
    publishing.pools.post(pool("a", taint="ecc"))
    await publishing.until(server, "a")
    await publishing.publisher.published.wait_for(lambda found: not found.trouble)
    writes = list(server.writes())
    for _ in range(3):
        publishing.pools.post(pool("a", taint="ecc"))
        reads = len(server.requests)
        await server_shows(lambda reads=reads: len(server.requests) > reads)  # type: ignore[misc]
    assert server.writes() == writes
    nursery.cancel_scope.cancel()


async def test_a_dropped_field_is_not_sent_for_ever(
    server: StandInApiServer, publishing: Publishing, nursery: trio.Nursery
) -> None:
    server.drop = ("taints",)
    nursery.start_soon(publishing.run)
    publishing.pools.post(pool("a", taint="ecc"))
    await publishing.until(server, "a")
    for _ in range(3):
        reads = len(server.requests)
        publishing.pools.post(pool("a", taint="ecc"))
        await server_shows(lambda reads=reads: len(server.requests) > reads)  # type: ignore[misc]
    assert len(server.writes()) == 1
    nursery.cancel_scope.cancel()


async def test_an_object_that_the_server_calls_wrong_is_not_repeated_until_the_pool_changes(
    server: StandInApiServer, publishing: Publishing, nursery: trio.Nursery
) -> None:
    server.refuse = lambda method, _path: (
        (422, "spec.devices: Too many") if method == "POST" else None
    )
    nursery.start_soon(publishing.run)
    publishing.pools.post(pool("a"))
    await publishing.publisher.published.wait_for(lambda found: "Too many" in found.trouble)
    server.put(f"{PATH}/00000-elsewhere", {"spec": {"driver": "other", "nodeName": "node-7"}})
    server.refuse = lambda _method, _path: None
    assert server.slices()[0]["spec"]["driver"] == "other"
    publishing.pools.post(pool("a", "b"))
    found: Published = await publishing.publisher.published.wait_for(
        lambda found: not found.trouble
    )
    assert found.trouble == ""
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("error", "calls", "longest"),
    [
        (ApiUnreachable("refused"), range(240, 600), 15.0),
        (ApiForbidden("no role"), range(45, 70), 76.0),
    ],
)
async def test_however_long_an_outage_was_the_slices_are_written_soon_after(
    server: StandInApiServer,
    publishing: Publishing,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    error: ApiError,
    calls: range,
    longest: float,
) -> None:
    """The watch of the slices, which has a pace of its own, is left out."""
    tries = []

    async def fail() -> Access:
        tries.append(trio.current_time())
        raise error

    async def watch_nothing(*_: object) -> None:
        pass

    monkeypatch.setattr(publishing.api, "access", fail)
    monkeypatch.setattr(offering, "watch_objects", watch_nothing)
    publishing.pools.post(pool("a"))
    with trio.move_on_after(3600):
        await offering._publish(
            publishing.api, OWNER, publishing.publisher, publishing.pools, lambda _cause: None
        )
    gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert len(tries) in calls
    assert max(gaps) <= longest
