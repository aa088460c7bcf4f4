"""A report is a host in an archive: read back, it matches the recorded host, and has nothing else."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import trio.testing

from biren_plugin.commands.doctor import report
from biren_plugin.commands.doctor.report import Recorder
from biren_plugin.core.settings import Settings
from biren_plugin.errors import ReportTooSlow
from biren_plugin.host.driver_cards import DriverCardReader
from biren_plugin.host.readers import read_once
from biren_plugin.host.vfio_groups import VfioGroupReader
from tests.support.clocks import Gate
from tests.support.recorded import HOSTS


async def pack(root: Path, to: Path) -> tarfile.TarFile:
    path = to / "report.tar.gz"
    await report.write_report(path, Settings(host_root=root), {"checks": []}, deadline=10.0)
    return tarfile.open(path)


@pytest.mark.parametrize("name", ["eight_whole", "mixed", "unsettled", "broken", "empty"])
async def test_a_report_reads_like_the_recorded_host(name: str, tmp_path: Path) -> None:
    with await pack(HOSTS / name, tmp_path) as archive:
        archive.extractall(tmp_path / "copy", filter="fully_trusted")
    copy = tmp_path / "copy/host"
    copy.mkdir(exist_ok=True)

    def read(root: Path) -> object:
        return read_once(DriverCardReader(root, mount_host_path=True, mount_dri_device=True))

    original, copied = read(HOSTS / name), read(copy)
    assert copied == original
    assert json.loads((tmp_path / "copy/doctor.json").read_text())["complete"] is True


async def test_a_kata_nodes_report_has_its_groups_nodes_and_other_members(tmp_path: Path) -> None:
    with await pack(HOSTS / "sriov_mixed", tmp_path) as archive:
        archive.extractall(tmp_path / "copy", filter="fully_trusted")
    copied = read_once(VfioGroupReader(tmp_path / "copy/host"))
    assert copied == read_once(VfioGroupReader(HOSTS / "sriov_mixed"))


async def test_a_report_has_only_files_that_are_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for path in ("etc/shadow", "usr/lib/libsecret.so", "dev/sda", "sys/class/net/eth0"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("secret")
    with await pack(root, tmp_path) as archive:
        names = archive.getnames()
    assert not [name for name in names if name.rpartition("/")[2] in
                ("shadow", "libsecret.so", "sda", "eth0")]  # fmt: skip


async def test_a_hanging_host_gives_no_report_but_the_command_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    release = Gate()

    def hang(_root: Path) -> list[str]:
        release.wait()
        return []

    monkeypatch.setattr(report, "_paths", hang)
    try:
        with pytest.raises(ReportTooSlow, match="no report was written"):
            await report.write_report(tmp_path / "r.tar.gz", Settings(), {}, deadline=10.0)
    finally:
        release.set()
    assert list(tmp_path.iterdir()) == []


def record(root: Path, *paths: str) -> tuple[Recorder, list[str]]:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        recorder = Recorder(root, archive, "host")
        for path in paths:
            recorder.add(path)
    packed.seek(0)
    with tarfile.open(fileobj=packed) as archive:
        return recorder, archive.getnames()


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert record(tmp_path, "/a")[1] == ["host/a", "host/b"]


def test_files_over_the_limit_are_left_out_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_MAX_ENTRIES", 1)
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    recorder, names = record(tmp_path, "/a", "/b")
    assert names == ["host/a"]
    assert recorder.full
