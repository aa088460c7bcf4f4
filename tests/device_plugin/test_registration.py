"""A registration counts while the kubelet holds a stream; each cause of its end has its own error.

The mock clock jumps whenever nothing is left to do. That goes with these Unix sockets, because both
ends are in this process: what one end has written is there for the other at once.
"""

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.core.rivals import RivalMemory
from biren_plugin.daemon_state import DaemonState
from biren_plugin.device_plugin.kubelet_folder import (
    KUBELET_SOCKET,
    KubeletFolder,
    read_kubelet_folder,
)
from biren_plugin.device_plugin.node import Node, OwnSocket, ResourceMemory, Streams
from biren_plugin.device_plugin.registration import STREAM_DEADLINE, stay_registered
from biren_plugin.errors import (
    InvalidRequest,
    KubeletRestarted,
    PluginSocketGone,
    RegistrationFailed,
    StreamEnded,
)
from biren_plugin.unix_sockets import FileIdentity, UnixListener
from biren_plugin.wire.device_plugin import new_registration_server
from biren_plugin.wire.messages import PluginOptions, Registration
from tests.support.bugs import raise_bug
from tests.support.clocks import settled

RESOURCE = "birentech.com/gpu"
DAY = 24 * 3600.0
KUBELETS_DIAL = 10.0
"""Seconds that a kubelet may spend on dialling back before it answers."""


@attrs.define
class Stage:
    """A kubelet's directory, and what a resource's subtree knows of it."""

    path: Path
    folder: Board[KubeletFolder] = attrs.Factory(Board)
    streams: Board[Streams] = attrs.Factory(Board)
    registered: Board[bool] = attrs.Factory(Board)
    rivals: RivalMemory = attrs.Factory(RivalMemory)
    registrations: list[Registration] = attrs.Factory(list)
    state: DaemonState = attrs.Factory(DaemonState)
    node: Node = attrs.field(init=False)
    identity: FileIdentity = attrs.field(init=False)
    """Of the plugin's own socket."""

    def __attrs_post_init__(self) -> None:
        self.node = Node(self.path, self.folder, self.state)
        self.socket.touch()
        found = FileIdentity.of(self.socket)
        assert found is not None
        self.identity = found

    @property
    def socket(self) -> Path:
        """The plugin's own."""
        return self.path / "plugin.sock"

    def look(self) -> None:
        """Post the directory's content, as the daemon's watcher does."""
        self.folder.post(read_kubelet_folder(self.path))

    def hold(self, streams: Iterable[object]) -> None:
        """Make the kubelet hold exactly these streams."""
        seen, wanted = self.streams.latest or Streams(), frozenset(streams)
        for stream in sorted(wanted - seen.open, key=str):
            seen = seen.with_new(stream)
        for stream in seen.open - wanted:
            seen = seen.without(stream)
        self.streams.post(seen)

    async def take(self, registration: Registration) -> None:
        """Accept every registration, and open a stream at once."""
        self.registrations.append(registration)
        self.hold({"a stream"})

    @contextlib.asynccontextmanager
    async def kubelet(
        self, take: Callable[[Registration], Awaitable[None]] | None = None
    ) -> AsyncIterator[None]:
        """Run a kubelet for the length of the block, and post its socket."""
        server = new_registration_server(take or self.take, on_bug=raise_bug)
        async with trio.open_nursery() as nursery:
            listener = UnixListener(self.path / KUBELET_SOCKET)
            nursery.start_soon(trio.serve_listeners, server.handle, [listener])
            self.look()
            yield
            nursery.cancel_scope.cancel()

    async def stay(self) -> None:
        """The task under test, for two days at most."""
        with trio.fail_after(2 * DAY):
            memory = ResourceMemory(registered=self.registered, rivals=self.rivals)
            own = OwnSocket(self.socket, self.identity)
            await stay_registered(RESOURCE, own, self.node, memory, self.streams)

    async def stream(self) -> None:
        """Wait until the kubelet has opened its stream."""
        with trio.fail_after(60):
            await self.streams.wait_for(lambda seen: bool(seen.open))
        await settled()

    def leave_dead_socket(self) -> None:
        """Leave the socket of a stopped kubelet behind."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(self.path / KUBELET_SOCKET))


@pytest.fixture
async def node(path: Path) -> Stage:
    return Stage(path)


async def test_nothing_is_tried_before_the_kubelets_socket_exists(
    node: Stage, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.stay)
        node.look()
        await trio.sleep(3600)
        assert not caplog.messages, "the folder's watcher says that there is no socket"
        async with node.kubelet():
            await node.stream()
            nursery.cancel_scope.cancel()
    assert len(node.registrations) == 1


async def test_a_socket_removed_by_a_new_kubelet_is_not_registered(
    node: Stage, autojump_clock: MockClock
) -> None:
    async with node.kubelet():
        node.socket.unlink()
        with pytest.raises(PluginSocketGone, match="deleted before it could be registered"):
            await node.stay()
    assert not node.registrations


async def test_a_stream_that_ended_before_it_was_noticed_counts_as_ended(
    node: Stage, autojump_clock: MockClock
) -> None:
    async def take(_registration: Registration) -> None:
        node.hold({"a stream"})
        node.hold(set())

    async with node.kubelet(take):
        started = trio.current_time()
        with pytest.raises(StreamEnded):
            await node.stay()
    assert trio.current_time() - started < STREAM_DEADLINE


async def test_the_registration_has_the_file_name_and_the_options(
    node: Stage, autojump_clock: MockClock
) -> None:
    async with node.kubelet(), trio.open_nursery() as nursery:
        nursery.start_soon(node.stay)
        await node.stream()
        nursery.cancel_scope.cancel()
    options = PluginOptions(pre_start_required=False, get_preferred_allocation_available=True)
    assert node.registrations == [Registration("plugin.sock", RESOURCE, "v1beta1", options)]


async def test_the_registration_lasts_while_the_stream_is_open(
    node: Stage, autojump_clock: MockClock
) -> None:
    async with node.kubelet():
        with trio.move_on_after(DAY) as day:
            await node.stay()
    assert day.cancelled_caught
    assert len(node.registrations) == 1


async def test_a_kubelet_that_opens_its_stream_after_its_answer_is_waited_for(
    node: Stage, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def take(_registration: Registration) -> None:
        """An older kubelet."""

    await trio.sleep(1)
    node.hold({"a bystander's"})
    async with node.kubelet(take), trio.open_nursery() as nursery:
        nursery.start_soon(node.stay)
        await trio.sleep(5)
        assert "registered" not in caplog.text
        assert [node.registered.latest] == [None]
        assert not node.state.counters.registrations
        node.hold({"a bystander's", "a stream"})
        await settled()
        assert f"{RESOURCE}: registered and watched, in 5000 ms" in caplog.text
        assert [node.registered.latest] == [True]
        assert node.state.counters.registrations == {RESOURCE: 1}
        await trio.sleep(60)
        assert nursery.child_tasks, "no stream has ended"
        nursery.cancel_scope.cancel()


async def test_an_answer_without_a_stream_is_not_a_registration(
    node: Stage, autojump_clock: MockClock
) -> None:
    async def take(_registration: Registration) -> None:
        """A kubelet that then forgets."""

    async with node.kubelet(take):
        with pytest.raises(RegistrationFailed, match="opened no stream in 10 s; see the kubelet's"):
            await node.stay()


async def test_a_refusal_has_the_kubelets_text(node: Stage, autojump_clock: MockClock) -> None:
    async def take(_registration: Registration) -> None:
        raise InvalidRequest("the resource name is invalid")

    async with node.kubelet(take):
        with pytest.raises(RegistrationFailed, match=r"refused: .*the resource name is invalid"):
            await node.stay()


async def test_the_kubelet_may_dial_for_its_full_time_before_it_answers(
    node: Stage, autojump_clock: MockClock
) -> None:
    async def take(registration: Registration) -> None:
        await trio.sleep(KUBELETS_DIAL + 1)
        await node.take(registration)

    async with node.kubelet(take):
        with trio.move_on_after(60) as minute:
            await node.stay()
    assert minute.cancelled_caught


async def test_a_kubelet_that_never_answers_is_abandoned(
    node: Stage, autojump_clock: MockClock
) -> None:
    async def take(_registration: Registration) -> None:
        await trio.sleep_forever()

    async with node.kubelet(take):
        with pytest.raises(RegistrationFailed, match="did not answer"):
            await node.stay()


async def test_a_kubelet_that_dies_during_the_call_broke_off(
    node: Stage, autojump_clock: MockClock
) -> None:
    listener = UnixListener(node.path / KUBELET_SOCKET)

    async def die(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.aclose()

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, die, [listener])
        node.look()
        with pytest.raises(RegistrationFailed, match="broke off"):
            await node.stay()
        nursery.cancel_scope.cancel()


async def test_a_stopped_kubelets_socket_is_tried_repeatedly_and_logged_once(
    node: Stage, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    for outage in (1, 2):
        node.hold(set())
        node.leave_dead_socket()
        node.look()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.stay)
            await trio.sleep(0.5)
            assert caplog.text.count("waiting for the kubelet") == outage - 1, "it may just start"
            await trio.sleep(600)
            assert caplog.text.count("waiting for the kubelet") == outage
            async with node.kubelet():
                await node.stream()
                nursery.cancel_scope.cancel()
        assert len(node.registrations) == outage


async def end_of_stream(node: Stage) -> str:
    """Register, lose the stream, and return the error's text."""
    with pytest.RaisesGroup(StreamEnded) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.stay)
            await node.stream()
            node.hold(set())
    (error,) = caught.value.exceptions
    return str(error)


async def test_the_end_of_the_stream_ends_the_registration(
    node: Stage, autojump_clock: MockClock
) -> None:
    async with node.kubelet():
        assert await end_of_stream(node) == f"the kubelet ended the stream of {RESOURCE}"


async def test_streams_ended_repeatedly_by_a_live_kubelet_suggest_a_rival(
    node: Stage,
    autojump_clock: MockClock,
) -> None:
    async with node.kubelet():
        texts = [await end_of_stream(node) for _ in range(3)]
    assert ["another plugin on this node" in text for text in texts] == [False, False, True]
    assert f"see the sockets in {node.path}" in texts[-1]


async def test_streams_ended_just_before_a_kubelet_restart_suggest_no_rival(
    node: Stage, autojump_clock: MockClock
) -> None:
    for _ in range(5):
        # A process that ends may close its streams before the socket that it listens on.
        async with node.kubelet():
            assert "another plugin" not in await end_of_stream(node)


async def test_a_stream_that_ends_with_its_kubelet_is_a_restart_and_suggests_no_rival(
    node: Stage, autojump_clock: MockClock
) -> None:
    for _ in range(5):
        with pytest.RaisesGroup(KubeletRestarted):
            async with trio.open_nursery() as nursery:
                async with node.kubelet():
                    nursery.start_soon(node.stay)
                    await node.stream()
                node.leave_dead_socket()
                node.hold(set())
        (node.path / KUBELET_SOCKET).unlink()


async def test_a_stream_that_ends_a_moment_before_its_kubelet_is_a_restart(
    node: Stage, autojump_clock: MockClock
) -> None:
    """A kubelet that is killed may close its streams before its socket."""
    with pytest.RaisesGroup(KubeletRestarted):
        async with trio.open_nursery() as nursery, node.kubelet():
            nursery.start_soon(node.stay)
            await node.stream()
            node.hold(set())
            await trio.sleep(0.01)


async def test_a_stream_that_ends_after_a_new_kubelet_has_started_is_a_restart(
    node: Stage, autojump_clock: MockClock
) -> None:
    with pytest.RaisesGroup(KubeletRestarted):
        async with trio.open_nursery() as nursery:
            async with node.kubelet():
                nursery.start_soon(node.stay)
                await node.stream()
            async with node.kubelet():
                node.hold(set())
                await trio.sleep(1)


async def test_sockets_that_were_there_before_the_registration_are_remembered(
    node: Stage, autojump_clock: MockClock
) -> None:
    with socket.socket(socket.AF_UNIX) as vendor:
        vendor.bind(str(node.path / "vendor.sock"))
    async with node.kubelet(), trio.open_nursery() as nursery:
        nursery.start_soon(node.stay)
        await node.stream()
        nursery.cancel_scope.cancel()
    assert "vendor.sock" in node.rivals.known_names


@pytest.mark.parametrize("ends_last", ["one", "two"])
async def test_the_end_of_any_stream_since_the_registration_ends_it(
    node: Stage, autojump_clock: MockClock, ends_last: str
) -> None:
    # A kubelet that answered two Registers holds both streams, and drops its client with either.
    async def take(_registration: Registration) -> None:
        node.hold({"a bystander's", "one"})

    node.hold({"a bystander's"})
    lasted = False
    async with node.kubelet(take):
        with pytest.RaisesGroup(StreamEnded):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.stay)
                await node.registered.wait_for(bool)
                # All at once: the kubelet opens its second stream within a moment.
                for streams in ({"one"}, {"one", "two"}):
                    node.hold(streams)
                    await settled()
                lasted = True
                node.hold({ends_last})
    assert lasted, "none of its own had ended"


async def test_a_stream_that_ends_between_two_checks_is_noticed(
    node: Stage, autojump_clock: MockClock
) -> None:
    answered = trio.Event()

    async def take(_registration: Registration) -> None:
        answered.set()

    async with node.kubelet(take):
        with pytest.RaisesGroup(StreamEnded):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.stay)
                await answered.wait()
                await settled()
                # In one step: the task that waits for the stream goes on only afterwards.
                node.hold({"one"})
                node.hold(set())
                await trio.sleep(60)
                pytest.fail("it goes on as if it were watched")


async def test_an_observers_later_stream_ends_no_registration(
    node: Stage, autojump_clock: MockClock
) -> None:
    lasted = False
    async with node.kubelet():
        with pytest.RaisesGroup(StreamEnded):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.stay)
                await node.registered.wait_for(bool)
                await trio.sleep(10)
                for streams in ({"a stream", "a bystander's"}, {"a stream"}):
                    node.hold(streams)
                    await trio.sleep(10)
                lasted = True
                node.hold(set())
    assert lasted, "the end of the bystander's stream was taken for that of the kubelet's"
