"""HTTP for the kubelet, Prometheus and hostile clients: no client holds up another."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial

import h11
import pytest
import trio
from trio.testing import (
    MockClock,
    lockstep_stream_pair,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from biren_plugin.core.model import Device
from biren_plugin.core.rivals import Rival
from biren_plugin.errors import AddressUnusable, NoThread
from biren_plugin.monitor.http import (
    CONNECTIONS,
    DEADLINE,
    FRESH,
    HEAD_SIZE,
    Endpoint,
    serve_endpoint,
)
from tests.support.cards import GPU, card, devices, listed
from tests.support.daemon_states import hold, new_state, register

Client = trio.abc.HalfCloseableStream


@pytest.fixture
async def endpoint() -> Endpoint:
    return Endpoint(new_state(listed(GPU, *devices(GPU, 0))))


async def read_all(client: Client) -> bytes:
    answer = bytearray()
    with contextlib.suppress(trio.BrokenResourceError):
        while piece := await client.receive_some():
            answer += piece
    return bytes(answer)


async def exchange(endpoint: Endpoint, request: bytes, *, ends: bool = True) -> bytes:
    """Return everything received on one connection; `ends`: the client closes its sending side."""
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(endpoint.handle, far)
        await near.send_all(request)
        if ends:
            await near.send_eof()
        return await read_all(near)


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: node\r\n\r\n".encode()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


async def test_metrics_use_the_text_format(endpoint: Endpoint) -> None:
    answer = await exchange(endpoint, get("/metrics?x=1"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert status_of(answer) == 200
    assert b"content-type: text/plain; version=0.0.4" in head.lower()
    assert f"content-length: {len(body)}".encode() in head.lower()
    assert b"br_gpu_devices{" in body


async def test_an_answer_to_head_has_no_body(endpoint: Endpoint) -> None:
    answer = await exchange(endpoint, get("/healthz", "HEAD"))
    assert status_of(answer) == 200
    assert b"content-length: 5\r\n" in answer.lower()
    assert answer.endswith(b"\r\n\r\n")


async def test_probes_report_the_problem() -> None:
    state = new_state(listed(GPU, *devices(GPU, 0)))
    endpoint = Endpoint(state)
    assert (await exchange(endpoint, get("/readyz"))).endswith(b"ready\n")
    register(state, GPU, taken=False)
    answer = await exchange(endpoint, get("/readyz"))
    assert status_of(answer) == 503
    assert answer.endswith(b"birentech.com/gpu: not registered with the kubelet\n")
    assert status_of(await exchange(endpoint, get("/healthz"))) == 200


async def test_a_stuck_loop_fails_the_liveness_probe(autojump_clock: MockClock) -> None:
    endpoint = Endpoint(new_state(host=1.0))
    await trio.sleep(3600)
    answer = await exchange(endpoint, get("/healthz"))
    assert status_of(answer) == 503
    assert b"host: no progress for 3600 s\n" in answer


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/nothing"), 404),
        (get("/../etc/passwd"), 404),
        (get("/metrics", "POST"), 405),
        (get("/metrics", "BREW"), 405),
        (b"GET /metrics HTTP/1.0\r\n\r\n", 200),
        (b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\nbody", 405),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 404),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /" + b"a" * HEAD_SIZE, 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * HEAD_SIZE, 431),
    ],
)
async def test_a_strange_request_gets_the_right_status(
    endpoint: Endpoint, request_: bytes, status: int
) -> None:
    assert status_of(await exchange(endpoint, request_)) == status


@pytest.mark.parametrize("request_", [b"", b"GET /metr", b"\r\n\r\n"])
async def test_a_client_that_leaves_before_its_request_gets_nothing(
    endpoint: Endpoint, request_: bytes
) -> None:
    answer = await exchange(endpoint, request_)
    assert answer == b"" or status_of(answer) == 400


async def test_a_client_that_stops_sending_is_disconnected(
    endpoint: Endpoint, autojump_clock: MockClock
) -> None:
    assert await exchange(endpoint, b"GET /metrics HTTP/1.1\r\nHo", ends=False) == b""
    assert trio.current_time() == pytest.approx(DEADLINE)


async def test_a_trickle_of_bytes_does_not_extend_the_deadline(
    endpoint: Endpoint, autojump_clock: MockClock
) -> None:
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(endpoint.handle, far)
        with contextlib.suppress(trio.BrokenResourceError):
            for byte in get("/metrics") * 10:
                await near.send_all(bytes([byte]))
                await trio.sleep(0.5)
    assert trio.current_time() <= DEADLINE + 0.5


async def test_a_client_that_does_not_read_is_disconnected(
    endpoint: Endpoint, autojump_clock: MockClock
) -> None:
    near, far = lockstep_stream_pair()  # whose send waits for the other's receive
    async with trio.open_nursery() as nursery:
        nursery.start_soon(endpoint.handle, far)
        await near.send_all(get("/metrics"))
    assert trio.current_time() == pytest.approx(DEADLINE)


async def test_a_client_that_keeps_sending_is_disconnected(endpoint: Endpoint) -> None:
    near, far = lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(endpoint.handle, far)
        await near.send_all(get("/healthz"))
        nursery.start_soon(read_all, near)
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await near.send_all(b"more" * 1024)
    assert not endpoint._open


async def test_a_probe_gets_through_when_all_connections_are_taken(endpoint: Endpoint) -> None:
    idle = []
    async with trio.open_nursery() as nursery:
        for _ in range(CONNECTIONS):
            near, far = memory_stream_pair()
            idle.append(near)
            nursery.start_soon(endpoint.handle, far)
            await wait_all_tasks_blocked()  # so that they come in this order
        assert status_of(await exchange(endpoint, get("/healthz"))) == 200
        assert await read_all(idle[0]) == b"", "the first made room"
        await idle[1].send_all(get("/healthz"))
        await idle[1].send_eof()
        assert status_of(await read_all(idle[1])) == 200, "the others did not"
        nursery.cancel_scope.cancel()


async def test_metrics_are_rebuilt_at_most_once_a_second(autojump_clock: MockClock) -> None:
    state = new_state(listed(GPU, *devices(GPU, 0)))
    endpoint = Endpoint(state)
    before = await exchange(endpoint, get("/metrics"))
    hold(state, listed(GPU, *devices(GPU, 0, 1)))
    assert await exchange(endpoint, get("/metrics")) == before
    await trio.sleep(FRESH)
    assert b"card_1" in await exchange(endpoint, get("/metrics"))


async def test_a_page_that_fails_on_a_bug_is_answered_and_logged(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(endpoint._metrics, "text", lambda: 1 / 0)
    answer = await exchange(endpoint, get("/metrics"))
    assert status_of(answer) == 500
    assert b"ZeroDivision" not in answer
    assert "ZeroDivisionError" in caplog.text


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[int]:
    """The endpoint on a real port."""
    async with trio.open_nursery() as nursery:
        serve = partial(serve_endpoint, "127.0.0.1", 0, new_state(listed(GPU, *devices(GPU, 0))))
        yield await nursery.start(serve)
        nursery.cancel_scope.cancel()


async def ask(port: int, request: bytes) -> list[h11.Event]:
    """Send one request over TCP, and read the answer with h11's client side."""
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("host", "node")]))
    http.send(h11.EndOfMessage())
    events: list[h11.Event] = []
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request)
        while not events or not isinstance(events[-1], h11.EndOfMessage):
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(bytes(await stream.receive_some()))
            elif isinstance(event, h11.Event):
                events.append(event)
    return events


# Real time from here on: sockets. Only accepting waits for the clock, 5 ms a connection.


async def test_a_whole_answer_arrives_over_tcp_even_if_the_requests_body_was_not_read() -> None:
    with trio.fail_after(30):
        async with served() as port:
            body = (
                b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n" + b"x" * 9000
            )
            refusal, *_ = await ask(port, body)
            assert isinstance(refusal, h11.Response)
            assert refusal.status_code == 405


async def test_the_kubelets_probe_gets_through_a_crowd_of_silent_clients() -> None:
    with trio.fail_after(30):
        async with served() as port, contextlib.AsyncExitStack() as crowd:
            for _ in range(2 * CONNECTIONS):
                await crowd.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
            response, *_ = await ask(port, get("/readyz"))
            assert isinstance(response, h11.Response)
            assert response.status_code == 200


async def test_an_address_in_use_is_an_error_of_one_line() -> None:
    async with served() as port:
        with pytest.raises(AddressUnusable, match=f"cannot listen on 127.0.0.1:{port} .*in use"):
            await serve_endpoint("127.0.0.1", port, new_state())


async def test_a_name_that_is_not_looked_up_in_time_is_an_address_that_cannot_be_used(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object, **__: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio.to_thread, "run_sync", hang)
    with pytest.raises(AddressUnusable, match=r"looking up node\.example .*give an address"):
        await serve_endpoint("node.example", 9451, new_state())


async def test_a_name_without_a_thread_to_look_it_up_is_a_limit_of_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", refuse)
    with pytest.raises(NoThread, match=r"pids\.max"):
        await serve_endpoint("node.example", 9451, new_state())


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
async def test_an_impossible_host_name_is_not_a_bug(host: str) -> None:
    """Five bugs would end the daemon."""
    with pytest.raises(AddressUnusable, match=f"cannot listen on {host}:9451 .*--metrics-address"):
        await serve_endpoint(host, 9451, new_state())


async def test_names_of_files_that_are_not_text_reach_the_pages_as_escapes() -> None:
    state = new_state(listed(GPU, Device(card(0), GPU, ("a link to /\udcff\x1b[31m\n",))))
    register(state, GPU, taken=False)
    state.rivals[GPU] = Rival(("biren\udcff\x1b[31m\n.sock",), "its name")
    endpoint = Endpoint(state)
    ready = await exchange(endpoint, get("/readyz"))
    assert b"biren\\udcff\\x1b[31m\\n.sock" in ready
    metrics = await exchange(endpoint, get("/metrics"))
    assert status_of(metrics) == 200
    assert b"\x1b" not in ready + metrics
