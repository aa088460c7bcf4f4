"""A settings file that changes under a running daemon is one warning, and nothing else."""

from functools import partial
from pathlib import Path

import pytest

from biren_plugin.host.config_directory import settings_file_of
from biren_plugin.monitor.settings_watch import SettingsWatch


def look(watch: SettingsWatch, log: pytest.LogCaptureFixture) -> list[str]:
    """The lines that one comparison logs."""
    log.clear()
    with log.at_level("INFO"):
        watch.compare(watch.read())
    return [each.getMessage() for each in log.records]


def test_a_change_is_logged_once_and_so_is_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("pulse: 1")
    watch = SettingsWatch(lambda: path)
    assert look(watch, caplog) == look(watch, caplog) == []
    path.write_text("pulse: 2")
    [line] = look(watch, caplog)
    assert line.startswith(f"{path}: the settings have changed")
    assert look(watch, caplog) == []
    path.write_text("pulse: 1")
    [line] = look(watch, caplog)
    assert line.startswith(f"{path}: the settings are again")
    path.unlink()
    assert len(look(watch, caplog)) == 1


def test_a_file_of_the_nodes_own_that_appears_is_a_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "default.yaml").write_text("pulse: 1")
    watch = SettingsWatch(partial(settings_file_of, tmp_path, "node-7"))
    assert look(watch, caplog) == []
    (tmp_path / "node-7.yaml").write_text("pulse: 1")
    [line] = look(watch, caplog)
    assert line.startswith(f"{tmp_path / 'node-7.yaml'}: ")
