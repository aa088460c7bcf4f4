"""Answers that no API server gives, but a proxy before it, or one that starts or ends, are faults of the server."""

import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.cluster.api_server import ApiServer
from biren_plugin.cluster.credentials import Access, PodCredentials, load_kubeconfig
from biren_plugin.cluster.http_connection import connect
from biren_plugin.cluster.object_watch import Objects, watch_objects
from biren_plugin.errors import ApiForbidden, ApiUnreachable
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
    caplog.set_level("INFO")
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
    assert caplog.text.count("watch of nodes runs again") == 1


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


async def test_a_server_that_knows_its_roles_late_is_asked_again_soon(
    api: ApiServer, server: StandInApiServer
) -> None:
    refusals = iter([(403, "no role was found")])
    server.refuse = lambda _method, _path: next(refusals, None)
    objects = Board[Objects]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_objects, api, NODES, {}, objects)
        with trio.fail_after(10):
            await objects.wait_for(lambda seen: "n" in seen)
        nursery.cancel_scope.cancel()


async def test_a_missing_right_is_asked_for_about_once_a_minute(
    api: ApiServer, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    async def refuse() -> Access:
        tries.append(trio.current_time())
        raise ApiForbidden("nodes is forbidden")

    monkeypatch.setattr(api, "access", refuse)
    with trio.move_on_after(3600):
        await watch_objects(api, NODES, {}, Board[Objects]())
    assert 40 <= len(tries) < 70
    assert tries[1] < 5, "a server that has just started may allow it soon"


async def test_a_server_whose_machine_has_gone_is_noticed_by_the_kernel(api: ApiServer) -> None:
    await api.call("GET", f"{NODES}/n")
    assert api._kept is not None
    tcp = api._kept._stream.transport_stream  # type: ignore[attr-defined]
    assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    first, further, times = (
        tcp.getsockopt(socket.IPPROTO_TCP, option)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    )
    assert first + further * times <= 60


async def test_a_token_that_no_header_can_have_is_a_fault_of_its_file(
    server: StandInApiServer, tmp_path: Path
) -> None:
    environment = server.account(tmp_path)
    (tmp_path / "token").write_text("gehe\u00efm")
    with pytest.raises(ApiUnreachable, match="cannot read the service account"):
        await ApiServer(PodCredentials(environment, tmp_path).load).call("GET", NODES)


@pytest.mark.parametrize("token", ["gehe\u00efm", 7, ["a"]])
def test_a_kubeconfig_with_such_a_token_is_not_usable(
    server: StandInApiServer, tmp_path: Path, token: object
) -> None:
    path = server.kubeconfig(tmp_path)
    document = json.loads(path.read_text())
    document["users"][0]["user"]["token"] = token
    path.write_text(json.dumps(document))
    with pytest.raises(ApiUnreachable, match="token is not ASCII text"):
        load_kubeconfig(path)


@pytest.mark.parametrize("token", ["", "a\nb", "a b", "a\x00"])
async def test_a_token_file_with_more_than_a_word_is_a_fault_of_its_file(
    server: StandInApiServer, tmp_path: Path, token: str
) -> None:
    environment = server.account(tmp_path)
    (tmp_path / "token").write_text(token)
    with pytest.raises(ApiUnreachable, match="the token is not ASCII text of one word"):
        await ApiServer(PodCredentials(environment, tmp_path).load).call("GET", NODES)


@pytest.mark.parametrize(
    "user", [{}, {"exec": {"command": "aws"}}, {"client-certificate-data": ""}]
)
def test_a_kubeconfig_whose_user_cannot_authenticate_is_not_used_without_credentials(
    server: StandInApiServer, tmp_path: Path, user: dict[str, object]
) -> None:
    path = server.kubeconfig(tmp_path)
    document = json.loads(path.read_text())
    document["users"][0]["user"] = user
    path.write_text(json.dumps(document))
    with pytest.raises(
        ApiUnreachable, match="neither a token nor a client certificate with its key"
    ):
        load_kubeconfig(path)


@pytest.mark.parametrize("text", ["[" * 1000, '{"a":' * 1000, "x" * 2**21])
def test_a_kubeconfig_that_is_deep_or_large_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(ApiUnreachable, match=str(path)):
        load_kubeconfig(path)


def test_an_endless_kubeconfig_is_read_in_part() -> None:
    with pytest.raises(ApiUnreachable, match="/dev/zero has more than"):
        load_kubeconfig(Path("/dev/zero"))


async def test_a_watch_without_a_thread_for_its_credentials_is_no_bug(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = Board[Objects]()
    causes: list[Exception] = []

    async def no_thread(*_args: object, **_options: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as out_of_processes:
        out_of_processes.setattr(trio.to_thread, "run_sync", no_thread)

        def failed(cause: Exception) -> None:
            causes.append(cause)
            out_of_processes.undo()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_objects, api, NODES, {}, objects, failed)
            with trio.fail_after(10):
                await objects.wait_for(lambda seen: "n" in seen)
            nursery.cancel_scope.cancel()
    assert [type(each) for each in causes] == [ApiUnreachable]
    assert "pids.max" in str(causes[0])


async def test_a_server_whose_name_cannot_be_looked_up_for_want_of_a_thread_is_unreachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def no_thread(*_args: object, **_options: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", no_thread)
    access = Access("api.example", 6443, ssl.create_default_context())
    with pytest.raises(ApiUnreachable, match=r"look up .* api\.example: can't start .*pids\.max"):
        await connect(access)
