"""The owner writes the file if it may, reports why it may not, and writes again after a failure.

Threads touch the disk, so the clock stands still unless a test moves it.
"""

import errno
import logging
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from biren_plugin.core.cdi.findings import OnDisk, findings_of
from biren_plugin.core.cdi.spec import spec_for
from biren_plugin.core.model import DeviceList, HostFacts
from biren_plugin.errors import NoThread
from biren_plugin.files import cdi_file
from biren_plugin.files.cdi_owner import LET_GO_DEADLINE, READ_INTERVAL, CdiOwner
from tests.support.cards import GPU, HALF, devices, listed
from tests.support.clocks import Gate, jump, settled

GPUS = listed(GPU, *devices(GPU, 0, 1))
MORE = listed(GPU, *devices(GPU, 0, 1, 2))
HALVES = listed(HALF, *devices(HALF, 5, 6))
MINE = "# mine\n"
FULL = "No space left on device"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "biren.yaml"


@asynccontextmanager
async def running(owner: CdiOwner) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(owner.run)
        yield
        nursery.cancel_scope.cancel()


async def seen_to(owner: CdiOwner, *lists: DeviceList) -> OnDisk:
    """Pass these lists to the owner, and return its answer."""
    numbers = [owner.hand(each) for each in lists]
    with trio.fail_after(60):
        return await owner.on_disk.wait_for(lambda on_disk: on_disk.answers >= numbers[-1])


async def without_trouble(owner: CdiOwner) -> OnDisk:
    with trio.fail_after(60):
        return await owner.on_disk.wait_for(lambda on_disk: not trouble_of(on_disk))


def trouble_of(on_disk: OnDisk) -> str:
    return "; ".join(map(str, on_disk.findings))


def put(path: Path, *lists: DeviceList) -> str:
    """Put a file there that existed before the daemon, and return its text."""
    spec: Any = spec_for(lists)
    path.write_text(MINE + cdi_file.render(spec, "yaml"))
    return path.read_text()


def written(path: Path) -> list[str]:
    spec = cdi_file.load(path)
    assert spec is not None
    return [device["name"] for device in spec["devices"]]


async def test_no_file_is_touched_before_the_first_request(
    path: Path, mock_clock: MockClock
) -> None:
    old = put(path, MORE)
    async with running(CdiOwner(path, overwrite=True)):
        await jump(mock_clock, 3600)
        await settled()
        assert path.read_text() == old


async def test_one_file_holds_the_devices_of_all_resources(
    path: Path, mock_clock: MockClock
) -> None:
    owner = CdiOwner(path, overwrite=False)
    async with running(owner):
        on_disk = await seen_to(owner, GPUS, HALVES)
        assert (on_disk.spec, trouble_of(on_disk)) == (spec_for([GPUS, HALVES]), "")
        assert written(path) == ["card_0", "card_1", "card_5", "card_6"]


async def test_a_file_that_the_daemon_created_follows_its_devices_and_goes_with_the_last(
    path: Path, mock_clock: MockClock
) -> None:
    owner = CdiOwner(path, overwrite=False)
    async with running(owner):
        await seen_to(owner, GPUS, HALVES)
        await seen_to(owner, MORE)
        assert written(path) == ["card_0", "card_1", "card_2", "card_5", "card_6"]
        await seen_to(owner, listed(GPU))
        assert written(path) == ["card_5", "card_6"]
        owner.forget(GPU)
        empty = listed(HALF)
        assert trouble_of(await seen_to(owner, empty)) == ""
        assert not path.exists()
        await seen_to(owner, GPUS)
        assert written(path) == ["card_0", "card_1"]


async def test_an_existing_file_is_never_changed_and_its_missing_devices_are_logged_once(
    path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    old = put(path, GPUS)
    owner = CdiOwner(path, overwrite=False)
    async with running(owner):
        assert trouble_of(await seen_to(owner, GPUS)) == ""
        assert not caplog.messages
        on_disk = await seen_to(owner, MORE, HALVES)
        assert on_disk.spec == spec_for([GPUS]), "the file's content counts"
        await look_again(mock_clock)
        await settled()
    (line,) = caplog.messages
    assert line.startswith(f"{path}: stale, it lacks card_2, card_5, card_6")
    assert "it is left as it is" in line
    assert "--overwrite-cdi-config" in line
    assert path.read_text() == old


async def test_an_existing_file_that_no_runtime_loads_is_not_changed_either(
    path: Path, mock_clock: MockClock
) -> None:
    path.write_text("kind: birentech.com/1-2-gpu\n")
    owner = CdiOwner(path, overwrite=False)
    async with running(owner):
        on_disk = await seen_to(owner, GPUS)
    assert on_disk.spec is None
    assert "not a valid CDI spec" in trouble_of(on_disk)
    assert "--overwrite-cdi-config" in trouble_of(on_disk)
    assert path.read_text() == "kind: birentech.com/1-2-gpu\n"


async def test_overwrite_replaces_a_file_that_no_runtime_loads(
    path: Path, mock_clock: MockClock
) -> None:
    path.write_text("kind: birentech.com/1-2-gpu\n")
    owner = CdiOwner(path, overwrite=True)
    async with running(owner):
        assert trouble_of(await seen_to(owner, GPUS)) == ""
        assert path.read_text() == cdi_file.render(spec_for([GPUS]) or {}, "yaml")
        await seen_to(owner, listed(GPU))
        assert not path.exists(), "the whole file is ours"


async def test_overwrite_adopts_a_file_with_the_same_content_without_writing_it(
    path: Path, mock_clock: MockClock
) -> None:
    old = put(path, GPUS)
    owner = CdiOwner(path, overwrite=True)
    async with running(owner):
        assert trouble_of(await seen_to(owner, GPUS)) == ""
        assert path.read_text() == old
        await seen_to(owner, MORE)
        assert written(path) == ["card_0", "card_1", "card_2"]


@pytest.mark.parametrize("overwrite", [True, False])
async def test_a_writable_file_is_removed_when_the_node_has_no_card(
    path: Path, mock_clock: MockClock, *, overwrite: bool
) -> None:
    put(path, GPUS)
    owner = CdiOwner(path, overwrite=overwrite)
    async with running(owner):
        owner.forget_all()
        await owner.on_disk.wait_for(lambda on_disk: on_disk.answers == 1)
        assert path.exists() is not overwrite


async def test_our_file_with_a_new_mtime_is_still_ours(path: Path, mock_clock: MockClock) -> None:
    owner = CdiOwner(path, overwrite=False)
    async with running(owner):
        await seen_to(owner, GPUS)
        os.utime(path, (1, 1))
        assert trouble_of(await seen_to(owner, MORE)) == ""
        assert written(path) == ["card_0", "card_1", "card_2"]


async def test_an_instance_that_stops_serving_leaves_the_file_to_the_next(
    path: Path, mock_clock: MockClock
) -> None:
    owner = CdiOwner(path, overwrite=True)
    async with running(owner):
        await seen_to(owner, GPUS)
        await owner.let_go()
        await settled()
        path.write_text("the next instance's")
        await look_again(mock_clock)
        await settled()
    assert path.read_text() == "the next instance's"


async def test_a_foreign_file_that_lacks_what_every_container_needs_is_logged(
    path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    spec: Any = spec_for([GPUS])
    path.write_text(cdi_file.render(spec, "yaml"))
    owner = CdiOwner(path, overwrite=False)
    with_node = attrs.evolve(GPUS, host=HostFacts(control_node=True))
    async with running(owner):
        on_disk = await seen_to(owner, with_node)
    assert on_disk.reason_for("card_0") == ""
    (line,) = caplog.messages
    assert line.startswith(f"{path}: stale, other nodes or mounts for every container")


async def test_a_second_file_with_our_names_serves_none_of_them_until_it_goes(
    path: Path, mock_clock: MockClock
) -> None:
    put(path.with_name("other.yaml"), listed(GPU, *devices(GPU, 1)))
    owner = CdiOwner(path, overwrite=False)
    async with running(owner):
        on_disk = await seen_to(owner, GPUS)
        assert "remove one" in on_disk.reason_for("card_1")
        assert on_disk.reason_for("card_0") == ""
        path.with_name("other.yaml").unlink()
        await look_again(mock_clock)
        await without_trouble(owner)


@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
async def test_what_is_never_replaced_is_not_advised_to_be_replaced(
    path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    if kind == "link":
        put(path.with_name("foreign"), listed(GPU, *devices(GPU, 9)))
        path.symlink_to("foreign")
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    owner = CdiOwner(path, overwrite=False)
    async with running(owner):
        on_disk = await seen_to(owner, GPUS)
    assert "correct it, or remove it" in on_disk.reason_for("card_0")
    assert (
        "overwrite" not in f"{caplog.messages} {findings_of(cdi_file.read(path), spec_for([GPUS]))}"
    )


async def test_a_duplicated_card_is_not_called_missing(
    path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    put(path.with_name("other.yaml"), GPUS)
    owner = CdiOwner(path, overwrite=False)
    async with running(owner):
        await seen_to(owner, GPUS)
    line = caplog.messages[-1]
    assert "remove one; card_0, card_1: Unhealthy until then" in line
    assert "lacks" not in line


async def test_overwrite_does_not_replace_a_symlink_but_its_content_counts(
    path: Path, mock_clock: MockClock
) -> None:
    put(path.with_name("elsewhere"), GPUS)
    path.symlink_to("elsewhere")
    owner = CdiOwner(path, overwrite=True)
    async with running(owner):
        on_disk = await seen_to(owner, MORE)
    assert on_disk.spec == spec_for([GPUS])
    assert "is a symlink" in trouble_of(on_disk)
    assert path.is_symlink()


async def look_again(clock: MockClock) -> None:
    await jump(clock, READ_INTERVAL)


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_write_in_flight_ends_before_the_file_is_let_go_and_a_late_one_is_dropped(
    path: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    goes_on = Gate()
    fsync = os.fsync

    def hang(descriptor: int) -> None:
        goes_on.wait()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", hang)
    owner = CdiOwner(path, overwrite=True)
    gone: list[bool] = []

    async def let_go() -> None:
        await owner.let_go()
        gone.append(path.exists())

    try:
        async with running(owner), trio.open_nursery() as nursery:
            owner.hand(GPUS)
            await settled()
            nursery.start_soon(let_go)
            await settled()
            assert not gone
            if is_late:
                await jump(mock_clock, LET_GO_DEADLINE)
                await settled()
                assert gone
                path.write_text("the next instance's")
            goes_on.set()
            await settled()
    finally:
        goes_on.set()
    assert gone == [False]
    assert not is_late or path.read_text() == "the next instance's"
    assert list(path.parent.iterdir()) == ([path] if is_late else [])
    assert not owner.on_disk.latest  # another instance's file is not ours to judge


async def test_after_a_full_disk_the_old_content_stays_and_the_write_is_repeated(
    path: Path,
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    owner = CdiOwner(path, overwrite=False)
    async with running(owner):
        await seen_to(owner, GPUS)
        with monkeypatch.context() as full:
            full.setattr(os, "fsync", fail_as_full)
            on_disk = await seen_to(owner, MORE)
            assert on_disk.spec == spec_for([GPUS])
            assert FULL in trouble_of(on_disk)
            await look_again(mock_clock)
            await settled()
        await look_again(mock_clock)
        await without_trouble(owner)
        assert written(path) == ["card_0", "card_1", "card_2"]
    first, trouble, second, last = caplog.messages
    assert first == f"{path} written: 2 devices"
    assert f"{FULL}; make room on its file system" in trouble
    assert second == f"{path} written: 3 devices"
    assert last == f"{path} serves every device again"


def fail_as_full(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, FULL)


async def test_a_new_file_whose_directory_cannot_be_flushed_is_still_ours(
    path: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = CdiOwner(path, overwrite=False)

    def fail(_path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with running(owner):
        with monkeypatch.context() as broken:
            broken.setattr(cdi_file, "_flush_folder", fail)
            on_disk = await seen_to(owner, GPUS)
            assert on_disk.spec == spec_for([GPUS]), "it exists, though a crash may lose it"
            assert "Input/output error" in trouble_of(on_disk)
        assert trouble_of(await seen_to(owner, MORE)) == ""
        assert written(path) == ["card_0", "card_1", "card_2"]


async def test_a_deleted_file_is_written_again(path: Path, mock_clock: MockClock) -> None:
    owner = CdiOwner(path, overwrite=False)
    async with running(owner):
        await seen_to(owner, GPUS)
        path.unlink()
        await look_again(mock_clock)
        with owner.on_disk.subscribe() as answers:
            await answers.receive()
            with trio.fail_after(60):
                await answers.receive()
        assert written(path) == ["card_0", "card_1"]


async def test_a_file_that_replaces_ours_is_foreign(path: Path, mock_clock: MockClock) -> None:
    owner = CdiOwner(path, overwrite=False)
    async with running(owner):
        await seen_to(owner, GPUS)
        path.unlink()
        theirs = put(path, listed(GPU, *devices(GPU, 0)))
        on_disk = await seen_to(owner, MORE)
        assert on_disk.spec == spec_for([listed(GPU, *devices(GPU, 0))])
        assert path.read_text() == theirs


async def test_overwrite_restores_our_file_over_a_foreign_one(
    path: Path, mock_clock: MockClock
) -> None:
    owner = CdiOwner(path, overwrite=True)
    async with running(owner):
        await seen_to(owner, GPUS)
        path.write_text("kind: [")
        await seen_to(owner, GPUS)
        assert written(path) == ["card_0", "card_1"]


async def test_a_corrected_file_counts_as_corrected(path: Path, mock_clock: MockClock) -> None:
    path.write_text("")
    owner = CdiOwner(path, overwrite=False)
    async with running(owner):
        await seen_to(owner, GPUS)
        put(path, GPUS)
        await look_again(mock_clock)
        assert (await without_trouble(owner)).spec == spec_for([GPUS])


async def test_a_hanging_disk_holds_up_one_thread_but_not_the_end(
    path: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = Gate()
    threads: list[int] = []

    def hang(_descriptor: int) -> None:
        threads.append(threading.get_ident())
        goes_on.wait()

    monkeypatch.setattr(os, "fsync", hang)
    owner = CdiOwner(path, overwrite=False)
    try:
        async with running(owner):
            owner.hand(GPUS)
            await settled()
        async with running(owner):  # as after the kubelet's directory was recreated
            owner.hand(MORE)
            for _ in range(3):
                await look_again(mock_clock)
            assert owner.on_disk.latest is None
            goes_on.set()
            await without_trouble(owner)
            assert written(path) == ["card_0", "card_1", "card_2"]
    finally:
        goes_on.set()


async def test_a_file_that_was_briefly_unreadable_is_read_again(
    path: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when descriptors run out; the file is foreign, so no write would cause another read."""
    put(path, GPUS)
    open_file = Path.open

    def fail(*_arguments: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    owner = CdiOwner(path, overwrite=False)
    async with running(owner):
        monkeypatch.setattr(Path, "open", fail)
        assert "Too many open files" in trouble_of(await seen_to(owner, GPUS))
        monkeypatch.setattr(Path, "open", open_file)
        assert await seen_to(owner, GPUS) == OnDisk(2, spec_for([GPUS]))


async def test_a_thread_that_cannot_start_is_the_nodes_fault(
    path: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five bugs would end the daemon, on a node that could not start it again."""

    def fail(*_arguments: Any) -> None:
        raise RuntimeError("can't start new thread")

    owner = CdiOwner(path, overwrite=False)
    owner.hand(GPUS)
    with monkeypatch.context() as exhausted:
        exhausted.setattr("trio._threads.start_thread_soon", fail)
        with pytest.raises(NoThread, match=r"can't start new thread: .*pids\.max"):
            await owner.run()
    async with running(owner):
        assert (await without_trouble(owner)).spec == spec_for([GPUS])


@pytest.mark.parametrize("trouble", [errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE])
async def test_a_file_of_ours_that_could_not_be_read_for_a_while_is_still_ours(
    path: Path, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock, trouble: int
) -> None:
    owner = CdiOwner(path, overwrite=False)
    async with running(owner):
        assert not (await seen_to(owner, GPUS)).findings
        with monkeypatch.context() as during:
            fail_at(path.parent, trouble, during)
            assert os.strerror(trouble) in trouble_of(await seen_to(owner, MORE))
        await jump(mock_clock, READ_INTERVAL)
        await without_trouble(owner)
        assert written(path) == ["card_0", "card_1", "card_2"]


async def test_a_foreign_file_that_could_not_be_read_for_a_moment_is_not_replaced(
    path: Path, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    text = put(path, HALVES)
    owner = CdiOwner(path, overwrite=False)
    with monkeypatch.context() as during:
        fail_at(path.parent, errno.EIO, during)
        async with running(owner):
            assert "Input/output error" in trouble_of(await seen_to(owner, GPUS))
            during.undo()
            for _ in range(3):
                await jump(mock_clock, READ_INTERVAL)
                await settled()
    assert path.read_text() == text


def fail_at(folder: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each call of a path in `folder` fail with an error of the system."""

    def failing(real: Any) -> Any:
        def call(at: Any, *arguments: Any, **named: Any) -> Any:
            if isinstance(at, (str, Path)) and Path(at).is_relative_to(folder):
                raise OSError(code, os.strerror(code), str(at))
            return real(at, *arguments, **named)

        return call

    for name in ("stat", "lstat", "open", "listdir", "scandir", "unlink", "replace"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    monkeypatch.setattr("io.open", failing(__import__("io").open))
