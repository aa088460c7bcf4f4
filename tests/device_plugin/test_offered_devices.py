"""No device is offered that the file lacks; worse verdicts do not wait for the disk.

Threads touch the disk, so time stands still here unless a test moves it.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.core.cdi.spec import spec_for
from biren_plugin.core.model import DeviceList
from biren_plugin.device_plugin.offered_devices import WRITE_DEADLINE, write_cdi_spec
from biren_plugin.files.cdi_file import load, render
from biren_plugin.files.cdi_owner import CdiOwner
from tests.support.cards import GPU, HALF, devices, listed
from tests.support.clocks import Gate, jump, settled

CARD_0, CARD_1, CARD_2 = devices(GPU, 0, 1, 2)
BOTH = listed(GPU, CARD_0, CARD_1)
SICK = listed(GPU, CARD_0, CARD_1.because("it is hot"))
ALL = listed(GPU, CARD_0, CARD_1, CARD_2)


class Stage:
    """A writer between two boards, and the owner of a file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "biren.yaml"
        self.owner = CdiOwner(self.path, overwrite=False)
        self.judged = Board[DeviceList]()
        self.offered = Board[DeviceList]()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[trio.Nursery]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.owner.run)
            with trio.fail_after(60):
                await nursery.start(write_cdi_spec, self.judged, self.owner, self.offered)
            yield nursery
            nursery.cancel_scope.cancel()

    async def offers(self, devices: DeviceList) -> None:
        with trio.fail_after(60):
            await self.offered.wait_for(lambda offered: offered == devices)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A disk that hangs while the event is not set; it is set at first."""
    goes_on = Gate()
    goes_on.set()
    fsync = os.fsync

    def hang(descriptor: int) -> None:
        goes_on.wait()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", hang)
    yield goes_on
    goes_on.set()


async def test_the_writer_has_started_when_the_file_holds_its_devices(
    stage: Stage, mock_clock: MockClock
) -> None:
    stage.judged.post(BOTH)
    async with stage.running():
        assert load(stage.path) == spec_for([BOTH])
        assert stage.offered.latest == BOTH


async def test_a_writer_without_a_first_list_has_not_started(
    stage: Stage, mock_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.owner.run)
        with trio.move_on_after(60) as waiting:
            nursery.start_soon(advance, mock_clock, 60)
            await nursery.start(write_cdi_spec, stage.judged, stage.owner, stage.offered)
        assert waiting.cancelled_caught
        nursery.cancel_scope.cancel()
    assert stage.offered.latest is None


async def advance(clock: MockClock, seconds: float) -> None:
    await jump(clock, seconds)


async def test_a_file_that_another_resource_changed_before_the_first_list_is_no_list(
    stage: Stage, mock_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.owner.run)
        stage.owner.hand(listed(HALF, *devices(HALF, 7)))
        await settled()
        assert stage.owner.on_disk.latest is not None
        nursery.start_soon(write_cdi_spec, stage.judged, stage.owner, stage.offered)
        await settled()
        stage.judged.post(BOTH)
        await stage.offers(BOTH)
        nursery.cancel_scope.cancel()


async def test_a_new_device_is_offered_once_the_file_holds_it(
    stage: Stage, mock_clock: MockClock, hanging: Gate
) -> None:
    stage.judged.post(BOTH)
    async with stage.running():
        hanging.clear()
        stage.judged.post(ALL)
        await settled()
        assert stage.offered.latest == BOTH
        hanging.set()
        await stage.offers(ALL)
        assert load(stage.path) == spec_for([ALL])


async def test_a_worse_verdict_does_not_wait_for_a_hanging_disk(
    stage: Stage, mock_clock: MockClock, hanging: Gate
) -> None:
    stage.judged.post(BOTH)
    async with stage.running():
        hanging.clear()
        stage.judged.post(ALL)
        await settled()
        stage.judged.post(SICK)
        await stage.offers(SICK)


async def test_a_hanging_disk_makes_new_devices_unhealthy_and_keeps_the_others(
    stage: Stage, mock_clock: MockClock, hanging: Gate
) -> None:
    stage.judged.post(BOTH)
    async with stage.running():
        hanging.clear()
        stage.judged.post(ALL)
        await advance(mock_clock, WRITE_DEADLINE)
        reason = f"the CDI file lacks it: writing {stage.path} takes more than 5 s, as when a disk hangs; see `dmesg` on the node"
        await stage.offers(listed(GPU, CARD_0, CARD_1, CARD_2.because(reason)))
        hanging.set()
        await stage.offers(ALL)


async def test_endless_changes_on_a_hanging_disk_do_not_starve_a_recovering_card(
    stage: Stage, mock_clock: MockClock, hanging: Gate
) -> None:
    stage.judged.post(SICK)
    async with stage.running():
        hanging.clear()
        for number in range(6):
            stage.judged.post(listed(GPU, CARD_0, CARD_1, CARD_2.because(f"change {number}")))
            await jump(mock_clock, WRITE_DEADLINE / 4)
        await settled()
        offered = stage.offered.latest
        assert offered is not None
        assert [device.healthy for device in offered.devices] == [True, True, False]


async def test_a_first_file_that_hangs_does_not_prevent_the_start(
    stage: Stage, mock_clock: MockClock, hanging: Gate
) -> None:
    hanging.clear()
    stage.judged.post(BOTH)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(advance, mock_clock, WRITE_DEADLINE)
        async with stage.running():
            assert stage.offered.latest is not None
            assert not any(device.healthy for device in stage.offered.latest.devices)
            hanging.set()
            await stage.offers(BOTH)


async def test_a_recovered_card_is_offered_without_a_new_file(
    stage: Stage, mock_clock: MockClock, hanging: Gate
) -> None:
    stage.judged.post(SICK)
    async with stage.running():
        hanging.clear()  # nothing is to be written
        stage.judged.post(BOTH)
        await stage.offers(BOTH)


async def test_devices_missing_from_a_foreign_file_are_unhealthy_until_it_is_corrected(
    stage: Stage, mock_clock: MockClock
) -> None:
    spec = spec_for([BOTH])
    assert spec is not None
    stage.path.write_text(render(spec, "yaml"))
    stage.judged.post(ALL)
    async with stage.running():
        offered = stage.offered.latest
        assert offered is not None
        assert [device.healthy for device in offered.devices] == [True, True, False]
        assert "--overwrite-cdi-config" in offered.devices[2].reasons[0]
        stage.path.unlink()
        await advance(mock_clock, 5)
        await stage.offers(ALL)
        assert load(stage.path) == spec_for([ALL])


async def test_a_device_is_withdrawn_before_the_file_loses_it(
    stage: Stage, mock_clock: MockClock
) -> None:
    """A reader of the file at the moment of each list finds all offered devices."""
    stage.judged.post(ALL)

    async def read_along(*, task_status: trio.TaskStatus[None]) -> None:
        with stage.offered.subscribe() as lists:
            task_status.started()
            async for current in lists:
                spec = load(stage.path)
                assert spec is not None
                names = {device["name"] for device in spec["devices"]}
                assert {each.id for each in current.devices if each.healthy} <= names

    async with stage.running() as nursery:
        await nursery.start(read_along)
        for judged in (BOTH, ALL, listed(GPU, CARD_2), SICK, ALL):
            stage.judged.post(judged)
            await stage.offers(judged)
            await settled()
