"""Modules for other commands stay out of the daemon: its start and its memory are measured."""

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

_CODE = """
import json, sys
from biren_plugin import cli
from biren_plugin.commands.plain_settings import plain_settings
assert plain_settings(["--pulse=3", "--log-level=debug"], {})
import biren_plugin.daemon, biren_plugin.monitor.logs
print(json.dumps(sorted(sys.modules)))
"""


def test_the_daemon_starts_without_other_commands_modules() -> None:
    # In a process of its own: this one has imported everything.
    said = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=True)
    modules = set(json.loads(said.stdout))
    assert "biren_plugin.daemon" in modules
    unwanted = {
        "cyclopts",
        "ruamel.yaml",
        "rich",
        "biren_plugin.commands.doctor.examination",
        "biren_plugin.simulate",
        "biren_plugin.cluster",
        "biren_plugin.dra",
        "biren_plugin.hami",
        "biren_plugin.core.hami",
        "biren_plugin.core.event_objects",
        "biren_plugin.core.dra",
        "biren_plugin.core.cdi.findings",
        "biren_plugin.core.parse.vfio",
        "biren_plugin.files.cdi_file",
        "biren_plugin.files.cdi_owner",
        "biren_plugin.files.nfd_labels",
        "biren_plugin.host.vfio_groups",
        "h11",
    }
    assert modules & unwanted == set()


_COMMAND = """
import json, sys
sys.argv = ["br-gpu-device-plugin", *sys.argv[1:]]
from biren_plugin import cli
try:
    cli.main()
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize(
    "words",
    [("status", "--json", "--status-dir=/nowhere"), ("devices", "--host-root=/nowhere")],
    ids=lambda words: words[0],
)
def test_a_command_that_reads_once_needs_neither_trio_nor_grpc(words: Sequence[str]) -> None:
    said = subprocess.run(
        [sys.executable, "-c", _COMMAND, *words], capture_output=True, text=True, check=True
    )
    modules = {name.partition(".")[0] for name in json.loads(said.stdout.splitlines()[-1])}
    assert (
        modules & {"trio", "purerpc", "h2", "google", "anyio", "ruamel", "rich", "cyclopts"}
        == set()
    )
