"""Commands that read the host end within seconds when its driver hangs, and name the hanging card."""

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from biren_plugin.commands.cdi_file_commands import check, generate
from biren_plugin.commands.show_devices import devices
from biren_plugin.core.settings import Settings
from biren_plugin.errors import HostUnreadable
from biren_plugin.host import driver_cards, reads_once
from biren_plugin.host.readers import read_host
from biren_plugin.host.sysfs_files import read_texts
from biren_plugin.simulate.host import SimulatedHost


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost(tmp_path / "host")
    host.add_gpus({0: 1, 1: 1})
    return host


@pytest.fixture
def hang(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Make reading card_1's attributes hang until the event is set, as in a stuck driver."""
    back = threading.Event()

    def stuck(folder: str, attributes: Iterable[str]) -> dict[str, str]:
        if "card_1" in folder:
            back.wait(60)
        return read_texts(folder, attributes)

    monkeypatch.setattr(driver_cards, "read_texts", stuck)
    monkeypatch.setattr(reads_once, "SHARED", 0.5)
    yield back
    back.set()


def test_devices_shows_the_other_cards_and_names_the_one_that_hangs(
    host: SimulatedHost, hang: threading.Event, capsys: pytest.CaptureFixture[str]
) -> None:
    assert devices(host_root=host.root) == 0
    shown = capsys.readouterr().out.splitlines()
    assert any(line.startswith("card_0") and "Healthy" in line for line in shown)
    assert any(line.startswith("card_1 ") and "Healthy" not in line for line in shown), shown
    assert any(line.startswith("card_1: ") for line in shown), "a sentence says why"
    assert not hang.is_set()


@pytest.mark.parametrize("command", [devices, check, generate])
def test_a_hanging_listing_ends_every_command_with_one_line(
    host: SimulatedHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: object
) -> None:
    back = threading.Event()
    scandir = os.scandir

    def stuck(path: str) -> object:
        if "class/biren" in str(path):
            back.wait(60)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", stuck)
    monkeypatch.setattr(reads_once, "LISTING", 0.2)
    where = {} if command is devices else {"cdi_dir": tmp_path}
    with pytest.raises(HostUnreadable, match="as when a driver hangs; see `dmesg` on the node"):
        command(host_root=host.root, **where)  # type: ignore[operator]
    back.set()


@pytest.mark.parametrize("runtime", ["runc", "kata"])
def test_the_error_names_a_missing_host_root(
    tmp_path: Path, runtime: Literal["runc", "kata"]
) -> None:
    with pytest.raises(HostUnreadable, match=r"there is no directory .*typo; see --host-root"):
        read_host(Settings(host_root=tmp_path / "typo", container_runtime=runtime))
