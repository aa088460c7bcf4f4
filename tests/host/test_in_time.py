"""A command's call on a disk that hangs ends in one line."""

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from biren_plugin.commands import cdi_file_commands, command_line, flags
from biren_plugin.commands.cdi_file_commands import check_file, generate_file
from biren_plugin.core.settings import Settings
from biren_plugin.errors import DiskHangs, PluginError
from biren_plugin.host.in_time import in_time
from biren_plugin.simulate.host import SimulatedHost

Hang = Callable[..., object]


@pytest.fixture
def hang() -> Iterator[Hang]:
    """A call that hangs until the end of the test."""
    release = threading.Event()
    yield lambda *_, **__: release.wait()
    release.set()


def test_a_call_that_ends_in_time_returns_its_result_or_raises_its_error() -> None:
    assert in_time(lambda: 7, 60, "reading /x") == 7
    with pytest.raises(ZeroDivisionError):
        in_time(lambda: 1 / 0, 60, "reading /x")


def test_a_call_that_hangs_is_one_line_with_advice(hang: Hang) -> None:
    with pytest.raises(DiskHangs, match=r"^reading /x takes more than 0.01 s, .*; see `dmesg`"):
        in_time(hang, 0.01, "reading /x")


def generate(settings: Settings) -> bool:
    return generate_file(settings, None, "yaml", overwrite=True)


@pytest.mark.parametrize("command", [generate, check_file])
def test_cdi_commands_give_up_on_a_directory_that_hangs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hang: Hang,
    command: Callable[[Settings], bool],
) -> None:
    host = SimulatedHost(tmp_path / "host")
    host.add_gpus({0: 1})
    settings = Settings(host_root=host.root, cdi_dir=tmp_path / "cdi")
    monkeypatch.setattr(cdi_file_commands, "_DEADLINE", 0.01)
    monkeypatch.setattr(cdi_file_commands, "_put", hang)
    monkeypatch.setattr(cdi_file_commands, "check_node", hang)
    path = re.escape(f"{tmp_path}/cdi/biren.yaml")
    with pytest.raises(DiskHangs, match=f"ing {path} .*takes more than 0.01 s"):
        command(settings)


@pytest.mark.parametrize("flag", ["--config", "--config-dir"])
def test_a_settings_file_on_a_disk_that_hangs_is_named(
    monkeypatch: pytest.MonkeyPatch, hang: Hang, flag: str
) -> None:
    monkeypatch.setattr(flags, "_FILE_DEADLINE", 0.01)
    monkeypatch.setattr(flags, "_read_file", hang)
    with pytest.raises(PluginError, match=f"^reading {flag} /etc/x takes more than 0.01 s"):
        command_line.run([f"{flag}=/etc/x"])
