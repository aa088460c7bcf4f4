"""`status` and `devices` have the same values whether cyclopts reads their command line or not."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pytest
from cyclopts import App

from biren_plugin.commands.flags import EVERY_PARAMETER, fill_from_environment
from biren_plugin.commands.plain_command import SETTINGS_TOO, plain_command
from biren_plugin.commands.show_devices import devices
from biren_plugin.commands.show_status import status
from biren_plugin.core.settings import SETTINGS

COMMANDS: Final[Mapping[str, Callable[..., int]]] = {"devices": devices, "status": status}


def read_by_cyclopts(words: Sequence[str], variables: Mapping[str, str]) -> dict[str, Any]:
    taken: list[dict[str, Any]] = []

    @functools.wraps(COMMANDS[words[0]])
    def command(**given: Any) -> int:
        taken.append(given)
        return 0

    app = App(config=[fill_from_environment], default_parameter=EVERY_PARAMETER)
    app.default(command)
    with mock.patch.dict(os.environ, variables):
        app(words[1:], exit_on_error=False, print_error=False, result_action="return_value")
    return taken[0]


@pytest.mark.parametrize(
    ("words", "variables", "given"),
    [
        (["devices"], {}, {}),
        (["devices", "--json", "--host-root=/h"], {}, {"json": True, "host_root": Path("/h")}),
        (["devices", "--host-root", "/h"], {}, {"host_root": Path("/h")}),
        (["devices", "--exclude=card_1", "--exclude", "card_2"], {}, {"exclude": ("card_1", "card_2")}),
        (["devices"], {"BR_GPU_EXCLUDE": "card_1, card_2\n"}, {"exclude": ("card_1", "card_2")}),
        (["devices", "--exclude=card_3"], {"BR_GPU_EXCLUDE": "card_1"}, {"exclude": ("card_3",)}),
        (["devices"], {"BR_GPU_CONTAINER_RUNTIME": "kata"}, {"container_runtime": "kata"}),
        (["devices"], {"BR_GPU_JSON": "true", "BR_GPU_PULSE": "often"}, {}),
        (["status", "--watch"], {"BR_GPU_STATUS_DIR": "/s"}, {"watch": True, "status_dir": Path("/s")}),
        (["status", "--problem=false"], {"BR_GPU_STATUS_DIR": " "}, {"problem": False}),
    ],
)  # fmt: skip
def test_an_ordinary_command_line_is_read_as_cyclopts_reads_it(
    words: Sequence[str], variables: Mapping[str, str], given: Mapping[str, Any]
) -> None:
    call = plain_command(words, variables)
    assert isinstance(call, partial)
    assert call.func is COMMANDS[words[0]]
    assert call.keywords == given == read_by_cyclopts(words, variables)


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        ([], {}),
        (["doctor"], {}),
        (["devices", "--help"], {}),
        (["devices", "-h"], {}),
        (["devices", "--host_root=/h"], {}),
        (["devices", "--host-root"], {}),
        (["devices", "--host-root", "--json"], {}),
        (["devices", "--host-root="], {}),
        (["devices", "--json=maybe"], {}),
        (["devices", "--container-runtime=docker"], {}),
        (["devices"], {"BR_GPU_CONTAINER_RUNTIME": "docker"}),
        (["status", "extra"], {}),
        (["status", "--"], {}),
    ],
)
def test_help_and_whatever_is_wrong_are_left_to_cyclopts(
    words: Sequence[str], variables: Mapping[str, str]
) -> None:
    assert plain_command(words, variables) is None


def test_every_parameter_that_is_a_setting_has_its_variable() -> None:
    names = {name for run in COMMANDS.values() for name in run.__annotations__}
    assert names & {field.name for field in SETTINGS} == SETTINGS_TOO
