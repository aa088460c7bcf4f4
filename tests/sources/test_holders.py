"""Holders arrive from an independent kubelet; every fault of a kubelet is logged once.

The kubelet's threads do not use the mock clock: it stands still unless a test moves it.
"""

import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.core.inventory.holder_memory import FORGET_AFTER, HolderMemory
from biren_plugin.core.inventory.kubelet_start import BATCH, LISTING
from biren_plugin.core.model import Snapshot
from biren_plugin.core.observed import (
    RIGHT_AFTER,
    ClaimFile,
    ClaimFiles,
    Doubt,
    Holder,
    KubeletView,
    Observed,
)
from biren_plugin.core.parse.claim_device import ClaimDevice
from biren_plugin.errors import ClaimFileUnusable
from biren_plugin.sources.holders import (
    DEADLINE,
    INTERVAL,
    SETTLING,
    SOCKET,
    SOONER,
    ClaimReader,
    ask_holders,
)
from tests.kubelet.pod_resources import PodResources
from tests.support.cards import GPU, gpu_cards, snapshot
from tests.support.clocks import jump, settled

HELD = {(GPU, "card_0"): "default/train", (GPU, "card_1"): "team/serve"}
REAL_DEADLINE = 20.0
"""Seconds for what takes milliseconds: only a test that fails waits so long."""
SHOWN = snapshot(*gpu_cards(0, 0), *gpu_cards(1, 1))


def pods(seen: Observed) -> dict[tuple[str, str], str] | None:
    """Return the pod that holds each device, as `namespace/name`."""
    if seen.holders is None:
        return None
    return {key: str(holder) for key, holder in seen.holders.items()}


async def no_claims() -> ClaimFiles:
    return {}


class Node:
    """A host with `card_0` and `card_1`, a kubelet that may run, and the task that asks it."""

    def __init__(self, folder: Path, clock: MockClock) -> None:
        self.folder = folder
        self.holders: dict[tuple[str, str], str] = dict(HELD)
        self.kubelet = PodResources(folder, lambda: self.holders)
        self.observed = Board[Observed]()
        self.views = Board[KubeletView]()
        self.doubts = Board[Doubt]()
        self.memory = HolderMemory()
        self._clock = clock
        self.show(SHOWN)

    def show(self, seen: Snapshot) -> None:
        """Show these cards on the host."""
        self.observed.post(attrs.evolve(self.observed.latest or Observed(), snapshot=seen))

    def start(self, nursery: trio.Nursery) -> None:
        """Start the task."""
        assert trio.lowlevel.current_clock() is self._clock, (
            "the test itself must ask for the clock"
        )
        nursery.start_soon(
            ask_holders, self.folder, self.observed, self.views, self.doubts, self.memory, no_claims
        )

    async def tells(self, holders: dict[tuple[str, str], str] | None) -> None:
        """Wait until the board has exactly this value."""
        await self.observed.wait_for(lambda seen: pods(seen) == holders)
        await settled()

    async def asked(self) -> None:
        """Wait until the kubelet was asked once more."""
        assert await trio.to_thread.run_sync(lambda: self.kubelet.asked.acquire(timeout=20))

    async def pass_time(self, seconds: float) -> None:
        """Move the clock."""
        await jump(self._clock, seconds)

    async def answered_after(self, seconds: float) -> None:
        """Move the clock, and wait for the answer to a question that is asked then."""
        await self.pass_time(seconds)
        now = trio.current_time()
        await self.views.wait_for(lambda view: view.at >= now and view.holders is not None)
        await settled()


@pytest.fixture
def folder(short_path: Path) -> Path:
    """The socket's directory, which does not exist yet."""
    return short_path / "pod-resources"


@pytest.fixture
def idle_node(folder: Path, mock_clock: MockClock) -> Node:
    """A node without a running kubelet."""
    return Node(folder, mock_clock)


@pytest.fixture
async def node(idle_node: Node) -> AsyncIterator[Node]:
    """A node with a running kubelet."""
    idle_node.kubelet.start()
    yield idle_node
    idle_node.kubelet.stop()


@contextmanager
def answering(folder: Path, *answers: bytes) -> Iterator[None]:
    """Run a server in the kubelet's place that sends these bytes on each connection, and closes it."""
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / SOCKET))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    for answer in answers:
                        connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1 << 16)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept, which closing would not
        thread.join(10)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a thread or a log line, which sets no event."""
    deadline = time.monotonic() + REAL_DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        await settled()
    await settled()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]


async def test_holders_arrive_on_the_board(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node.holders["nvidia.com/gpu", "card_0"] = "other/vendor"
    node.start(nursery)
    await node.tells(HELD)


async def test_a_node_without_pods_has_no_holders(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node.holders.clear()
    node.start(nursery)
    await node.tells({})


async def test_other_sources_values_are_not_changed(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node.start(nursery)
    await node.tells(HELD)
    assert node.observed.latest is not None
    assert node.observed.latest.snapshot == SHOWN


async def test_the_kubelet_is_asked_again_after_the_interval(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node.start(nursery)
    await node.tells(HELD)
    del node.holders[GPU, "card_1"]
    await node.pass_time(INTERVAL)
    await node.tells({(GPU, "card_0"): "default/train"})


async def test_the_kubelet_is_asked_sooner_when_the_node_shows_another_split(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node.holders.clear()
    node.start(nursery)
    await node.tells({})
    node.holders[GPU, "card_0"] = "default/late"
    node.show(snapshot(*gpu_cards(0, 0, 1)))  # the same names
    await settled()
    await node.pass_time(SOONER)
    await node.tells({(GPU, "card_0"): "default/late"})


async def test_the_kubelet_is_asked_often_while_a_pod_holds_a_vanished_device(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node.start(nursery)
    await node.tells(HELD)
    node.show(snapshot(*gpu_cards(0, 0)))
    await settled()
    for pod in ("default/one", "default/two", "default/three"):
        node.holders = {(GPU, "card_1"): pod}
        await node.pass_time(SOONER)
        await node.tells({(GPU, "card_1"): pod})
    node.holders.clear()
    await node.pass_time(SOONER)
    await node.tells({})


async def test_the_kubelet_is_asked_less_often_the_longer_a_pod_holds_a_vanished_device(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    def asked_at() -> float:
        return node.views.latest.at if node.views.latest is not None else 0.0

    node.start(nursery)
    await node.tells(HELD)
    node.show(snapshot(*gpu_cards(0, 0)))
    await settled()
    asked = trio.current_time()
    for wait in (SOONER, SOONER, 2 * SOONER, 4 * SOONER, 8 * SOONER, INTERVAL, INTERVAL):
        await node.pass_time(wait - 0.1)
        await settled()
        assert asked_at() < asked + wait - 0.1
        await node.pass_time(0.1)
        await until(lambda asked=asked, wait=wait: asked_at() == asked + wait)  # type: ignore[misc]
        asked += wait
    node.holders = {(GPU, "card_1"): "default/other"}
    await node.pass_time(INTERVAL)
    await node.tells({(GPU, "card_1"): "default/other"})
    node.holders.clear()
    await node.pass_time(SOONER)
    await node.tells({})


async def test_files_of_claims_on_a_disk_that_hangs_are_logged_once_until_they_can_be_read(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    answers = [trio.sleep_forever, trio.sleep_forever, no_claims]

    async def read() -> ClaimFiles:
        return await answers.pop(0)() or {}

    reader = ClaimReader(read)
    for _ in range(3):
        await reader.read()
    assert caplog.messages == [
        "cannot tell which claims are prepared: reading their files takes more than 5 s, as when a disk "
        "hangs; see `dmesg` on the node",
        "the files of claims can be read again",
    ]


async def refused() -> ClaimFiles:
    raise ClaimFileUnusable("cannot read /cdi: Permission denied")


@pytest.mark.parametrize("trouble", [trio.sleep_forever, refused])
async def test_files_of_claims_that_cannot_be_read_hold_their_cards_as_before(
    autojump_clock: MockClock, trouble: Callable[[], Awaitable[ClaimFiles]]
) -> None:
    files = {"uid-1": ClaimFile((ClaimDevice("uid-1", "cards", "gpu-0000-01-00-0"),), (1, 1))}

    async def read_once() -> ClaimFiles:
        return files

    answers = [read_once, trouble]
    reader = ClaimReader(lambda: answers.pop(0)())
    for _ in range(2):
        await reader.read()
    seen = reader.compare(KubeletView(trio.current_time()))
    assert seen.holder_of("gpu-0000-01-00-0") == "uid-1"


async def test_a_missing_socket_is_logged_once_and_used_when_it_appears(
    idle_node: Node, nursery: trio.Nursery, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    node = idle_node
    node.start(nursery)
    for _ in range(3):
        await settled()
        await node.pass_time(INTERVAL)
    await settled()
    [said] = warnings(caplog)
    assert said == (
        f"cannot tell which pod holds which card: no {node.folder / SOCKET} (is its directory "
        "mounted?). After a re-split a card name may be reused while its pod still runs"
    )
    node.kubelet.start()
    await node.pass_time(INTERVAL)
    await node.tells(HELD)
    assert caplog.messages[-1] == "the kubelet reports which pod holds which card"
    node.kubelet.stop()


async def test_an_unserved_socket_is_logged_once(
    idle_node: Node, nursery: trio.Nursery, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    idle_node.folder.mkdir()
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(idle_node.folder / SOCKET))
    idle_node.start(nursery)
    for _ in range(3):
        await settled()
        await idle_node.pass_time(INTERVAL)
    [said] = warnings(caplog)
    assert "card: Connection refused on " in said
    assert "kubelet.sock (is the kubelet running?)" in said


async def test_a_path_too_long_for_a_socket_is_logged(
    tmp_path: Path, nursery: trio.Nursery, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(tmp_path / ("x" * 120), mock_clock)
    node.start(nursery)
    await until(lambda: bool(warnings(caplog)))
    [said] = warnings(caplog)
    assert "path too long" in said
    assert "(see --pod-resources-dir)" in said


async def test_a_hanging_kubelet_is_abandoned_in_time_and_asked_again(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    node.kubelet.hold()
    node.start(nursery)
    for _ in range(3):
        await node.asked()
        await settled()
        await node.pass_time(DEADLINE)
        await until(lambda: bool(caplog.records))
        await node.pass_time(INTERVAL)
    await node.asked()
    [said] = warnings(caplog)
    assert said.startswith(
        "cannot tell which pod holds which card: the kubelet did not answer in 5 s. "
    )
    node.kubelet.release()
    await node.tells(HELD)


async def test_a_refusal_is_logged_with_the_kubelets_text(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    node.kubelet.refuse("rejected by rate limit")
    node.start(nursery)
    await until(lambda: bool(caplog.records))
    [said] = warnings(caplog)
    assert said.startswith("cannot tell which pod holds which card: the kubelet refused: ")
    assert "rejected by rate limit" in said
    node.kubelet.refuse(None)
    await node.pass_time(INTERVAL)
    await node.tells(HELD)


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(4096), b"\xff" * 4096],
    ids=["nothing", "HTTP/1.1", "zeros", "ones"],
)
async def test_garbage_is_logged_as_one_line_and_the_kubelet_asked_again(
    idle_node: Node,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    answer: bytes,
) -> None:
    with answering(idle_node.folder, answer):
        idle_node.start(nursery)
        await until(lambda: bool(caplog.records))
        assert warnings(caplog)[0].startswith(
            "cannot tell which pod holds which card: the kubelet broke off: "
        )
    idle_node.kubelet.start()
    await idle_node.pass_time(INTERVAL)
    await idle_node.tells(HELD)
    idle_node.kubelet.stop()


async def test_a_garbage_message_is_logged_as_one_line(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    node.kubelet.say_instead(b"\xff" * 100)
    node.start(nursery)
    await until(lambda: bool(caplog.records))
    [said] = warnings(caplog)
    assert said.startswith(
        "cannot tell which pod holds which card: the kubelet broke off: unreadable answer: "
    )
    node.kubelet.say_instead(None)
    await node.pass_time(INTERVAL)
    await node.tells(HELD)


async def test_the_answer_of_a_full_node_is_read_whole(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node.holders = {(GPU, f"card_{n}"): f"default/{'p' * 200}-{n}" for n in range(40_000)}
    node.start(nursery)
    await node.tells(node.holders)


async def test_a_too_long_answer_is_logged_as_one_line_and_the_kubelet_asked_again(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    node.holders = {(GPU, f"card_{n}"): f"default/{'p' * 10_000}-{n}" for n in range(2000)}
    node.start(nursery)
    await until(lambda: bool(caplog.records))
    [said] = warnings(caplog)
    assert "16777216 are allowed" in said
    node.holders = dict(HELD)
    await node.pass_time(INTERVAL)
    await node.tells(HELD)


async def test_a_restarting_kubelet_keeps_its_last_report_valid(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    node.start(nursery)
    await node.tells(HELD)
    node.kubelet.stop()
    for _ in range(3):
        await node.pass_time(INTERVAL)
        await settled()
        assert node.observed.latest is not None
        assert pods(node.observed.latest) == HELD
    assert not caplog.records
    del node.holders[GPU, "card_0"]
    node.kubelet.start()
    await node.pass_time(SOONER)
    await node.tells({(GPU, "card_1"): "team/serve"})
    node.kubelet.stop()
    node.kubelet.start()
    assert not caplog.records, "a restart is not a fault"


async def test_devices_that_a_kubelet_without_its_checkpoint_forgot_stay_held_until_the_pod_is_gone(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node.kubelet.running = {"default/train", "team/serve"}
    node.start(nursery)
    await node.tells(HELD)
    node.kubelet.stop()
    node.holders.clear()
    node.kubelet.start()
    await node.pass_time(INTERVAL)
    await node.asked()
    await node.asked()
    await node.observed.wait_for(lambda seen: all(each.forgotten for each in holders_in(seen)))
    await node.tells(HELD)
    node.kubelet.running = {"team/serve"}
    await node.pass_time(INTERVAL)
    await node.tells({(GPU, "card_1"): "team/serve"})
    node.holders[GPU, "card_1"] = "team/serve"
    await node.pass_time(INTERVAL)
    await node.observed.wait_for(lambda seen: not any(each.forgotten for each in holders_in(seen)))


async def test_a_kubelet_that_lists_no_pod_right_after_its_start_has_not_released_their_cards(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node.start(nursery)
    await node.tells(HELD)
    node.kubelet.stop()
    node.holders.clear()
    node.kubelet.start()
    await node.answered_after(INTERVAL)
    await node.tells(HELD)
    await node.answered_after(SETTLING)
    await node.tells(HELD)
    node.kubelet.running = {"default/train", "team/serve"}
    await node.answered_after(SETTLING)
    await node.tells(HELD)
    assert all(each.forgotten for each in holders_in(node.observed.latest))
    await node.answered_after(BATCH + SETTLING)  # by now it lists all
    before = node.views.latest
    await node.pass_time(SETTLING)
    await settled()
    assert node.views.latest is before, "from now on it is asked each second"
    await node.answered_after(SOONER - SETTLING)


async def test_pods_that_a_kubelet_does_not_list_long_after_its_start_are_gone(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node.start(nursery)
    await node.tells(HELD)
    node.kubelet.stop()
    node.holders.clear()
    node.kubelet.start()
    await node.answered_after(INTERVAL)
    await node.tells(HELD)
    await node.answered_after(LISTING + SETTLING)
    await node.tells({})


async def test_what_a_kubelet_forgot_that_was_away_for_long_is_held_too(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node.start(nursery)
    await node.tells(HELD)
    node.kubelet.stop()
    await node.pass_time(INTERVAL)
    await node.pass_time(FORGET_AFTER)
    await node.tells(None)
    node.holders.clear()
    node.kubelet.running = {"default/train", "team/serve"}
    node.kubelet.start()
    await node.answered_after(INTERVAL)
    await node.tells(HELD)
    assert all(each.forgotten for each in holders_in(node.observed.latest))


def holders_in(seen: Observed | None) -> list[Holder]:
    return list(((seen or Observed()).holders or {}).values())


async def test_a_pod_that_ends_under_one_kubelet_releases_its_card(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    # A pod that has completed may still be listed, without its devices: nothing was forgotten.
    node.kubelet.running = {"default/train", "team/serve"}
    node.start(nursery)
    await node.tells(HELD)
    node.holders.clear()
    await node.pass_time(INTERVAL)
    await node.tells({})


async def test_an_allocation_is_known_right_after_it(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node.holders.clear()
    node.start(nursery)
    await node.tells({})
    node.holders[GPU, "card_0"] = "default/new"
    node.doubts.post(Doubt(trio.current_time() + 1.5, 1))
    await node.pass_time(RIGHT_AFTER)
    await node.tells({(GPU, "card_0"): "default/new"})


async def test_a_question_that_somebody_waits_for_is_asked_at_once(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node.holders.clear()
    node.start(nursery)
    await node.tells({})
    node.holders[GPU, "card_0"] = "default/new"
    node.doubts.post(Doubt(trio.current_time() + 0.5, waiting=1))
    await node.tells({(GPU, "card_0"): "default/new"})


async def test_the_report_of_a_kubelet_that_stays_away_is_dropped_and_that_is_logged_once(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    node.start(nursery)
    await node.tells(HELD)
    node.kubelet.stop()
    await node.pass_time(FORGET_AFTER)
    await node.tells(None)
    for _ in range(3):
        await node.pass_time(INTERVAL)
        await settled()
    assert len(warnings(caplog)) == 1
    node.kubelet.start()
