"""Answers that no API server gives, but a proxy before it, or one that starts or ends, are faults of the server."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from biren_plugin.board import Board
from biren_plugin.cluster.api_server import ApiServer
from biren_plugin.cluster.credentials import PodCredentials
from biren_plugin.cluster.object_watch import Objects, watch_objects
from biren_plugin.errors import ApiUnreachable
from tests.support.api_server import StandInApiServer, stand_in_api_server

NODES = "/api/v1/nodes"


@pytest.fixture
def server() -> Iterator[StandInApiServer]:
    with stand_in_api_server() as running:
        running.put(f"{NODES}/n", {"metadata": {"name": "n"}})
        yield running


@pytest.fixture
async def api(server: StandInApiServer, tmp_path: Path) -> AsyncIterator[ApiServer]:
    account = tmp_path / "account"
    client = ApiServer(PodCredentials(server.account(account), account).load)
    yield client
    await client.close()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_a_redirect_is_no_success(
    api: ApiServer, server: StandInApiServer, status: int, method: str
) -> None:
    server.plain = lambda _method, _path: (status, b"")
    with pytest.raises(ApiUnreachable, match=f"status {status}"):
        await api.call(method, f"{NODES}/n", {} if method == "PATCH" else None)


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"<html>", b"[" * 100_000, b"\xff"])
async def test_an_answer_without_an_object_is_the_servers_fault(
    api: ApiServer, server: StandInApiServer, body: bytes
) -> None:
    server.plain = lambda _method, _path: (200, body)
    with pytest.raises(ApiUnreachable, match="the API server's answer is not"):
        await api.call("GET", f"{NODES}/n")


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"items": null, "metadata": {}}',
        b'{"items": [{}], "metadata": {"resourceVersion": "1"}}',
        b'{"items": 1, "metadata": {"resourceVersion": "1"}}',
        b'{"items": [7], "metadata": {"resourceVersion": "1"}}',
    ],
)
async def test_a_list_of_another_shape_is_the_servers_fault_and_is_tried_again(
    api: ApiServer, server: StandInApiServer, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server.plain = lambda _method, path: (200, body) if "watch=1" not in path else None
    objects = Board[Objects]()
    causes: list[Exception] = []

    def failed(cause: Exception) -> None:
        causes.append(cause)
        server.plain = lambda _method, _path: None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_objects, api, NODES, {}, objects, failed)
        with trio.fail_after(10):
            await objects.wait_for(lambda seen: "n" in seen)
        nursery.cancel_scope.cancel()
    assert [type(each) for each in causes] == [ApiUnreachable]


async def test_watches_that_end_at_once_are_asked_for_again_after_a_wait(
    api: ApiServer, server: StandInApiServer
) -> None:
    server.plain = lambda _method, path: (200, b"") if "watch=1" in path else None
    causes: list[Exception] = []
    failed = trio.Event()

    def note(cause: Exception) -> None:
        causes.append(cause)
        failed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_objects, api, NODES, {}, Board[Objects](), note)
        with trio.fail_after(10):
            await failed.wait()
        nursery.cancel_scope.cancel()
    assert "ended a watch" in str(causes[0])
    assert len(server.requests) == 2  # the list and one watch


async def test_a_watch_with_a_renewed_token_goes_on_at_once(
    api: ApiServer, server: StandInApiServer, tmp_path: Path
) -> None:
    objects = Board[Objects]()

    def renew(_method: str, path: str) -> None:
        if "watch=1" not in path:  # the list was let in with the old token
            server.token = "secret-2"
            (tmp_path / "account/token").write_text("secret-2")

    server.plain = renew
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_objects, api, NODES, {}, objects)
        with trio.fail_after(10):
            await objects.wait_for(lambda seen: "n" in seen)
            server.put(f"{NODES}/m", {"metadata": {"name": "m"}})
            await objects.wait_for(lambda seen: "m" in seen)
        nursery.cancel_scope.cancel()
