"""One holder at a time for each directory, whatever happens to it, found by its line in /proc/locks."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import outcome
import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.device_plugin import folder_lock
from biren_plugin.device_plugin.folder_lock import (
    HeldFolder,
    LockHolder,
    find_lock_holder,
    hold_folder,
    pid_of_lock,
)
from biren_plugin.device_plugin.kubelet_folder import KubeletFolder, read_kubelet_folder
from biren_plugin.errors import FolderDead
from tests.support.clocks import Gate, settled
from tests.support.descriptors import descriptors_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    return folder


@pytest.fixture
def folder(path: Path) -> Board[KubeletFolder]:
    board = Board[KubeletFolder]()
    board.post(read_kubelet_folder(path))
    return board


async def test_a_second_holder_waits_for_the_first(
    path: Path,
    folder: Board[KubeletFolder],
    autojump_clock: MockClock,
) -> None:
    second: list[HeldFolder] = []
    hindrances: set[str] = set()

    def note(hindrance: str) -> None:
        hindrances.add(hindrance)

    async def take() -> None:
        second.append(await hold_folder(path, folder, note))

    async with trio.open_nursery() as nursery:
        with await hold_folder(path, folder):
            nursery.start_soon(take)
            await trio.sleep(10)
            assert not second
    assert hindrances == {"held"}
    with second[0]:
        pass


async def take_second(path: Path, folder: Board[KubeletFolder]) -> None:
    """A second instance waits for the lock until the first one releases it, and takes it."""
    async with trio.open_nursery() as nursery:

        async def take() -> None:
            with await hold_folder(path, folder):
                pass

        with await hold_folder(path, folder):
            nursery.start_soon(take)
            await settled()


async def test_a_released_lock_is_taken_without_waiting_for_the_next_try(
    path: Path, folder: Board[KubeletFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock, "_RETRY", 3600.0)
    with trio.fail_after(60):
        await take_second(path, folder)


async def test_without_a_thread_for_the_wait_the_lock_is_taken_at_the_next_try(
    path: Path,
    folder: Board[KubeletFolder],
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.lowlevel, "start_thread_soon", refuse)
    await take_second(path, folder)


async def test_a_wait_that_fails_is_started_again(
    path: Path,
    folder: Board[KubeletFolder],
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[str] = []

    def fail(
        _wait: Callable[[], None], deliver: Callable[[outcome.Outcome[None]], None], name: str
    ) -> None:
        waits.append(name)
        deliver(outcome.Error(OSError(errno.EMFILE, "Too many open files")))

    monkeypatch.setattr(trio.lowlevel, "start_thread_soon", fail)
    with await hold_folder(path, folder), trio.move_on_after(10):
        await hold_folder(path, folder)
    assert len(waits) > 1


async def test_a_directory_that_is_replaced_while_its_lock_is_awaited_is_taken(
    path: Path, folder: Board[KubeletFolder], autojump_clock: MockClock
) -> None:
    taken = trio.Event()

    async def take() -> None:
        with await hold_folder(path, folder):
            taken.set()

    async with trio.open_nursery() as nursery:
        with await hold_folder(path, folder):
            nursery.start_soon(take)
            await settled()
            shutil.rmtree(path)
            path.mkdir()
            await taken.wait()


async def test_instances_that_give_up_leave_one_thread_behind(
    path: Path,
    folder: Board[KubeletFolder],
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[object] = []
    monkeypatch.setattr(trio.lowlevel, "start_thread_soon", lambda *job: threads.append(job))
    with await hold_folder(path, folder):
        for _ in range(3):
            with trio.move_on_after(5):
                await hold_folder(path, folder)
    assert len(threads) == 1


async def test_a_try_that_is_cancelled_while_the_disk_hangs_leaves_no_lock_behind(
    path: Path,
    folder: Board[KubeletFolder],
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, flock = Gate(), fcntl.flock

    def lock_slowly(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        gate.wait()

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", lock_slowly)
        with trio.move_on_after(5):
            await hold_folder(path, folder)
            pytest.fail("it holds what no call has returned")
    gate.set()
    await settled()
    with trio.fail_after(0.1):
        held = await hold_folder(path, folder)
    held.close()


async def test_tries_that_fail_leave_no_descriptor_behind(
    path: Path,
    folder: Board[KubeletFolder],
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()
    monkeypatch.setattr(folder_lock, "_await_lock", lambda _path: gate.wait())
    with await hold_folder(path, folder):
        with trio.move_on_after(5):
            await hold_folder(path, folder)
        assert descriptors_of(path) == 1, "of the lock that is held"
    gate.set()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become a user that cannot write")
async def test_a_daemon_that_cannot_write_leaves_the_lock_to_one_that_can(
    autojump_clock: MockClock,
) -> None:
    with tempfile.TemporaryDirectory() as made:
        path = Path(made)
        path.chmod(0o755)
        folder = Board[KubeletFolder]()
        folder.post(read_kubelet_folder(path))
        hindrances: set[str] = set()

        def note(hindrance: str) -> None:
            hindrances.add(hindrance)

        os.seteuid(65534)
        try:
            with trio.move_on_after(10):
                await hold_folder(path, folder, note)
                pytest.fail("it holds a directory that it cannot write in")
        finally:
            os.seteuid(0)
        assert hindrances == {"unwritable"}
        assert descriptors_of(path) == 0
        with await hold_folder(path, folder):
            pass


async def test_a_late_directory_is_waited_for(path: Path, autojump_clock: MockClock) -> None:
    board = Board[KubeletFolder]()
    board.post(KubeletFolder())
    async with trio.open_nursery() as nursery:

        async def take() -> None:
            with await hold_folder(path, board):
                pass

        nursery.start_soon(take)
        await trio.sleep(10)
        assert nursery.child_tasks, "it holds a folder that nobody has seen"
        board.post(read_kubelet_folder(path))


async def test_the_lock_is_on_the_directory_that_the_path_leads_to(
    path: Path, folder: Board[KubeletFolder]
) -> None:
    with await hold_folder(path, folder):
        shutil.rmtree(path)
        path.mkdir()
        with await hold_folder(path, folder):
            pass  # another folder, another lock


async def test_a_lock_on_a_directory_replaced_just_before_does_not_count(
    path: Path,
    folder: Board[KubeletFolder],
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flock = fcntl.flock
    locked: list[int] = []

    def lock_too_late(descriptor: int, operation: int) -> None:
        if not locked:
            shutil.rmtree(path)
            path.mkdir()
        flock(descriptor, operation)
        locked.append(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", lock_too_late)
        held = await hold_folder(path, folder)
    assert descriptors_of(path) == 1, "of the lock that counts"
    other = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with held, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(other)


async def test_a_file_system_without_locks_is_served_with_a_warning(
    path: Path,
    folder: Board[KubeletFolder],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with await hold_folder(path, folder):
        assert "only one instance runs on the node" in caplog.text


@pytest.mark.parametrize("made_anew", [False, True])
async def test_the_holder_notices_that_its_directory_was_replaced(
    path: Path, folder: Board[KubeletFolder], made_anew: bool, autojump_clock: MockClock
) -> None:
    with await hold_folder(path, folder) as held:
        shutil.rmtree(path)
        if made_anew:
            path.mkdir()
        await held.until_replaced(folder)


@pytest.mark.parametrize("trouble", [errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOMEM])
async def test_a_directory_that_cannot_be_read_for_a_while_is_not_replaced(
    path: Path,
    folder: Board[KubeletFolder],
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    trouble: int,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(trouble, os.strerror(trouble), str(path))

    with await hold_folder(path, folder) as held, monkeypatch.context() as during:
        during.setattr(os, "stat", fail)
        with trio.move_on_after(10) as waiting:
            await held.until_replaced(folder)
        assert waiting.cancelled_caught


async def test_a_deleted_directory_at_the_end_of_the_path_ends_the_process(
    path: Path, folder: Board[KubeletFolder], autojump_clock: MockClock
) -> None:
    # A bind mount whose source was deleted, without mounting: the descriptor's own path leads to
    # the deleted folder.
    descriptor = os.open(path, os.O_RDONLY)
    with HeldFolder(Path(f"/proc/self/fd/{descriptor}"), descriptor) as held:
        async with trio.open_nursery() as nursery:

            async def expect_death() -> None:
                with pytest.raises(FolderDead, match="restart the pod"):
                    await held.until_replaced(folder)

            nursery.start_soon(expect_death)
            await settled()
            assert nursery.child_tasks
            path.rmdir()
            folder.post(KubeletFolder(exists=True))


async def test_a_directory_that_cannot_be_opened_does_not_count_as_held(
    path: Path,
    folder: Board[KubeletFolder],
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")

    def refuse(*_arguments: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with trio.move_on_after(10):
            await hold_folder(path, folder)
            pytest.fail("it holds what it cannot open")
    assert "another instance" not in caplog.text
    with await hold_folder(path, folder):
        pass


DEVICE = os.makedev(0xFD, 1)
LOCKS = """\
1: POSIX  ADVISORY  WRITE 100 fd:01:7 0 EOF
2: FLOCK  ADVISORY  WRITE 200 fd:02:7 0 EOF
3: FLOCK  ADVISORY  WRITE 300 fd:01:7 0 EOF
3: -> FLOCK  ADVISORY  WRITE 400 fd:01:8 0 EOF
4: FLOCK  ADVISORY  WRITE -1 fd:01:9 0 EOF
5: OFDLCK ADVISORY  WRITE -1 fd:01:7 0 EOF
6: FLOCK
"""


@pytest.mark.parametrize(
    ("inode", "pid"),
    [(7, 300), (8, None), (9, None), (10, None)],
    ids=["held", "only waited for", "by a process of another namespace", "not held"],
)
def test_the_holder_is_the_process_on_the_directorys_own_line(inode: int, pid: int | None) -> None:
    assert pid_of_lock(LOCKS, DEVICE, inode) == pid


def test_file_system_that_shows_another_device_is_told_by_the_inode() -> None:
    assert pid_of_lock(LOCKS, os.makedev(0, 0x31), 7) == 200


def test_a_lock_with_the_same_inode_on_another_file_system_accuses_nobody() -> None:
    assert pid_of_lock(LOCKS, os.makedev(0xFD, 0x31), 7) is None


def test_the_process_that_holds_the_lock_is_found_with_its_command(tmp_path: Path) -> None:
    script = (
        "import fcntl, os, sys; "
        "fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", script, str(tmp_path), "backup"]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        found = find_lock_holder(tmp_path)
        process.communicate("")
    assert found is not None
    assert found.pid == process.pid
    assert f"process {process.pid} ({sys.executable}"[:40] in str(found)
    assert len(found.command) <= 80
    assert find_lock_holder(tmp_path) is None


INHERITED = """
import fcntl, os, sys
folder = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(folder, fcntl.LOCK_EX)
if not (waiting := os.fork()):
    os.close(folder)
    fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
    os._exit(0)
while not any("->" in each and f" {waiting} " in each for each in open("/proc/locks")):
    pass
if child := os.fork():
    print(child, flush=True)
    os._exit(0)
sys.stdin.read()
"""
"""Takes a lock and ends; a process that waits for the lock and the one that inherited it stay."""


def test_a_lock_that_a_child_inherited_is_held_by_the_child(tmp_path: Path) -> None:
    words = [sys.executable, "-c", INHERITED, str(tmp_path)]
    opened = os.open(tmp_path, os.O_RDONLY)  # as the daemon that asks has it open
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.wait()
        found = find_lock_holder(tmp_path)
        process.communicate("")
    os.close(opened)
    assert found is not None
    assert found.pid == child


def test_a_process_that_has_ended_is_not_named_as_the_holder_though_its_child_is_invisible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = tmp_path.stat()
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "locks").write_text(f"1: FLOCK  ADVISORY  WRITE 4242 {device}:{status.st_ino} 0 EOF\n")
    monkeypatch.setattr(folder_lock, "_PROC", proc)
    assert find_lock_holder(tmp_path) is None
    (proc / "4242").mkdir()
    assert find_lock_holder(tmp_path) == LockHolder(4242, "")


def test_a_process_without_a_readable_command_is_shown_by_its_id(tmp_path: Path) -> None:
    assert str(LockHolder(7, "")) == "process 7"
    assert find_lock_holder(tmp_path / "none") is None


def test_the_callers_own_lock_is_found_too(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        found = find_lock_holder(tmp_path)
    finally:
        os.close(descriptor)
    assert found is not None
    assert found.pid == os.getpid()
