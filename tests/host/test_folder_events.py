"""A wait ends with a change in its directories, and without any event after the given time."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from biren_plugin.host import folder_events
from biren_plugin.host.folder_events import FolderEvents
from tests.support.clocks import jump
from tests.support.descriptors import descriptors_of

DEADLINE = 20.0
"""Seconds. Events come from the kernel, which knows no mock clock, so waiting for one is real."""
LONG = 3600.0
INOTIFY = "anon_inode:inotify"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "biren"
    path.mkdir()
    return path


@pytest.fixture
def bell(tmp_path: Path, folder: Path) -> Iterator[FolderEvents]:
    with FolderEvents([tmp_path, folder]) as made:
        yield made


async def rings_for_what_happened(bell: FolderEvents) -> bool:
    """Return whether the wait ends at once: a pending event keeps the clock from jumping."""
    started = trio.current_time()
    await bell.wait(LONG)
    return trio.current_time() - started < LONG


async def test_a_change_ends_the_wait(bell: FolderEvents, folder: Path) -> None:
    bell.arm(trio.current_time())
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bell.wait, LONG)
            await wait_all_tasks_blocked()
            (folder / "card_0").touch()


@pytest.mark.parametrize("change", ["created", "deleted", "moved away", "moved here", "linked"])
async def test_a_change_between_arming_and_waiting_is_not_lost(
    bell: FolderEvents, folder: Path, tmp_path: Path, change: str, autojump_clock: MockClock
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for path in (folder / "card_0", outside / "card_1"):
        path.touch()
    bell.arm(trio.current_time())
    match change:
        case "created":
            (folder / "card_2").touch()
        case "deleted":
            (folder / "card_0").unlink()
        case "moved away":
            (folder / "card_0").rename(outside / "card_0")
        case "moved here":
            (outside / "card_1").rename(folder / "card_1")
        case _:
            (folder / "card_2").symlink_to("/dev/null")
    assert await rings_for_what_happened(bell)


async def test_reading_and_writing_a_file_is_not_a_change(
    bell: FolderEvents, folder: Path, autojump_clock: MockClock
) -> None:
    (folder / "card_0").touch()
    bell.arm(trio.current_time())
    (folder / "card_0").write_text("text")
    (folder / "card_0").read_text()
    assert not await rings_for_what_happened(bell)


async def test_a_burst_of_changes_ends_one_wait(
    bell: FolderEvents, folder: Path, autojump_clock: MockClock
) -> None:
    bell.arm(trio.current_time())
    for number in range(100):
        (folder / f"card_{number}").touch()
    assert await rings_for_what_happened(bell)
    assert not await rings_for_what_happened(bell)


async def test_a_change_that_follows_closely_does_not_end_the_next_wait(
    bell: FolderEvents, folder: Path, mock_clock: MockClock
) -> None:
    bell.arm(trio.current_time())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bell.wait, LONG)
        for number in range(3):
            await wait_all_tasks_blocked()
            (folder / f"card_{number}").touch()
        await wait_all_tasks_blocked()
        await jump(mock_clock, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bell.wait, LONG)
        await wait_all_tasks_blocked()
        assert nursery.child_tasks, "the second wait ended early"
        nursery.cancel_scope.cancel()


async def test_a_change_that_a_cancelled_wait_has_seen_ends_the_next_wait(
    bell: FolderEvents, folder: Path, autojump_clock: MockClock
) -> None:
    bell.arm(trio.current_time())
    (folder / "card_0").touch()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bell.wait, LONG)
        await wait_all_tasks_blocked()  # it waits for the end of the burst
        nursery.cancel_scope.cancel()
    assert await rings_for_what_happened(bell)
    assert not await rings_for_what_happened(bell)


async def test_without_a_change_the_wait_ends_after_the_longest_time(
    bell: FolderEvents, autojump_clock: MockClock
) -> None:
    bell.arm(trio.current_time())
    started = trio.current_time()
    await bell.wait(1.0)
    assert trio.current_time() - started == 1.0


async def test_a_directory_created_later_is_watched_from_the_next_arming_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    late = tmp_path / "late"
    with FolderEvents([late]) as bell:
        bell.arm(trio.current_time())
        late.mkdir()
        (late / "card_0").touch()
        assert not await rings_for_what_happened(bell)
        bell.arm(trio.current_time())
        (late / "card_1").touch()
        assert await rings_for_what_happened(bell)


async def test_a_recreated_directory_is_watched_again(
    bell: FolderEvents, folder: Path, autojump_clock: MockClock
) -> None:
    bell.arm(trio.current_time())
    folder.rmdir()
    folder.mkdir()
    assert await rings_for_what_happened(bell)
    bell.arm(trio.current_time())
    (folder / "card_0").touch()
    assert await rings_for_what_happened(bell)


async def test_arming_again_and_again_changes_nothing(
    bell: FolderEvents, folder: Path, autojump_clock: MockClock
) -> None:
    for _ in range(3):
        bell.arm(trio.current_time())
    assert not await rings_for_what_happened(bell)
    (folder / "card_0").touch()
    assert await rings_for_what_happened(bell)


async def test_without_inotify_the_wait_ends_after_the_longest_time(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: MockClock,
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(folder_events, "INotify", exhausted)
    with FolderEvents([folder]) as bell:
        [record] = caplog.records
        assert "no inotify: Too many open files" in record.getMessage()
        assert "fs.inotify.max_user_instances" in record.getMessage()
        bell.arm(trio.current_time())
        (folder / "card_0").touch()
        started = trio.current_time()
        await bell.wait(1.0)
        assert trio.current_time() - started == 1.0


async def test_inotify_that_had_run_out_is_tried_again_and_its_return_is_logged(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: MockClock,
) -> None:
    caplog.set_level("INFO")

    def exhausted(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(folder_events, "INotify", exhausted)
        bell = FolderEvents([folder])
        for _ in range(3):
            assert not bell.arm(trio.current_time())
            await trio.sleep(100)
    with bell:
        assert bell.arm(trio.current_time())
        (folder / "card_0").touch()
        assert await bell.wait(1.0)
    assert [record.getMessage()[:20] for record in caplog.records] == [
        "no inotify: Too many",
        "inotify is available",
    ]


async def test_folder_events_closes_its_descriptor(folder: Path) -> None:
    before = descriptors_of(INOTIFY)
    with FolderEvents([folder]) as bell:
        bell.arm(trio.current_time())
        assert descriptors_of(INOTIFY) == before + 1
    assert descriptors_of(INOTIFY) == before


async def test_only_the_given_names_end_the_wait(
    tmp_path: Path, folder: Path, autojump_clock: MockClock
) -> None:
    with FolderEvents([tmp_path, folder], {tmp_path: {"biren-m"}}) as bell:
        bell.arm(trio.current_time())
        for name in ("loop0", "dm-1", "biren-mm"):
            (tmp_path / name).touch()
        assert not await rings_for_what_happened(bell)
        (tmp_path / "biren-m").touch()
        assert await rings_for_what_happened(bell)
        (folder / "loop0").touch()
        assert await rings_for_what_happened(bell)


async def test_a_given_name_among_others_ends_the_wait(tmp_path: Path, folder: Path) -> None:
    with FolderEvents([tmp_path], {tmp_path: {"biren-m"}}) as bell:
        bell.arm(trio.current_time())
        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bell.wait, LONG)
                await wait_all_tasks_blocked()
                (tmp_path / "loop0").touch()
                await wait_all_tasks_blocked()
                assert nursery.child_tasks, "the wait ended for a name that was not given"
                (tmp_path / "biren-m").touch()


async def test_deleting_a_directory_with_given_names_ends_the_wait(
    tmp_path: Path, folder: Path, autojump_clock: MockClock
) -> None:
    with FolderEvents([folder], {folder: {"card_0"}}) as bell:
        bell.arm(trio.current_time())
        folder.rmdir()
        assert await rings_for_what_happened(bell)


async def test_a_noisy_directory_wakes_nobody_until_it_is_armed_again(
    tmp_path: Path, folder: Path, mock_clock: MockClock
) -> None:
    with FolderEvents([tmp_path, folder], {tmp_path: {"biren-m"}}) as bell:
        bell.arm(trio.current_time())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bell.wait, LONG)
            for number in range(2):  # the second one comes soon after the first
                await wait_all_tasks_blocked()
                (tmp_path / f"loop{number}").touch()
            await jump(mock_clock, 1)
            await wait_all_tasks_blocked()
            readings: list[object] = []
            read, bell._read = bell._read, lambda: readings.append(1) or read()  # type: ignore[method-assign,func-returns-value]
            for number in range(2, 20):
                (tmp_path / f"loop{number}").touch()
                await wait_all_tasks_blocked()
            assert not readings
            (folder / "card_0").touch()  # the other directory is watched as before
            await wait_all_tasks_blocked()
            assert readings
            await jump(mock_clock, 1)
        await jump(mock_clock, 10)
        bell.arm(trio.current_time())
        (tmp_path / "biren-m").touch()
        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bell.wait, LONG)
                await wait_all_tasks_blocked()
                await jump(mock_clock, 1)
