"""A node in a directory for each test: a simulated host, a kubelet's directory, the daemon."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.daemon import DaemonProcess
from tests.kubelet.client import KubeletProcess

GPU: Final = "birentech.com/gpu"
HALF: Final = "birentech.com/1-2-gpu"
QUARTER: Final = "birentech.com/1-4-gpu"

_NO_INOTIFY: Final = '''
"""As on a node whose inotify instances have run out."""
import errno
import inotify_simple


class Exhausted:
    def __init__(self, *_arguments, **_keywords):
        raise OSError(errno.EMFILE, "Too many open files")


inotify_simple.INotify = Exhausted
'''


@pytest.fixture
def folder(short_path: Path) -> Path:
    """An empty directory."""
    return short_path


@pytest.fixture
def host(folder: Path) -> SimulatedHost:
    """A host with a driver and no card yet."""
    return SimulatedHost(folder / "host")


@pytest.fixture
def plugins(folder: Path) -> Path:
    """The kubelet's directory, empty."""
    path = folder / "plugins"
    path.mkdir()
    return path


@pytest.fixture
def kubelet(plugins: Path) -> Iterator[KubeletProcess]:
    """A running, current kubelet."""
    with KubeletProcess(plugins) as running:
        yield running


@pytest.fixture
def new_daemon(folder: Path) -> Iterator[Callable[[], DaemonProcess]]:
    """Create daemons for this node, not started. At the end each must stop when asked, without a bug."""
    (folder / "host").mkdir(exist_ok=True)
    made: list[DaemonProcess] = []

    def new() -> DaemonProcess:
        flags = [
            f"--host-root={folder / 'host'}",
            f"--device-plugin-dir={folder / 'plugins'}",
            f"--pod-resources-dir={folder / 'pod-resources'}",
            f"--status-dir={folder / 'status'}",
            "--log-format=text",
            "--recover-after=0",
        ]
        made.append(DaemonProcess(*flags))
        return made[-1]

    yield new
    try:
        for daemon in made:
            if daemon.running:
                assert daemon.end() == 0
            daemon.assert_no_bug()
    finally:
        for daemon in made:
            daemon.kill()


@pytest.fixture
def daemon(new_daemon: Callable[[], DaemonProcess]) -> DaemonProcess:
    """The daemon of this node, not started."""
    return new_daemon()


@pytest.fixture
def without_inotify(folder: Path, daemon: DaemonProcess) -> None:
    """Make the daemon find no free inotify instance."""
    patched = folder / "patched"
    patched.mkdir()
    (patched / "sitecustomize.py").write_text(_NO_INOTIFY)
    others = os.environ.get("PYTHONPATH", "")
    daemon.environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(patched), others]))


@pytest.fixture(params=["with inotify", "without inotify"])
def either_way(request: pytest.FixtureRequest) -> None:
    """Run the test twice: with inotify, and without a free instance."""
    if request.param == "without inotify":
        request.getfixturevalue("without_inotify")


def streams_ended(kubelet: KubeletProcess, resource: str, since: int) -> list[dict[str, Any]]:
    """Return the kubelet's events about ended streams of a resource since that mark."""
    return [
        event
        for event in kubelet.events[since:]
        if event["event"] == "stream_ended" and event["resource"] == resource
    ]


def strings_of(answer: object) -> str:
    """Return everything in an answer as one text, to search for forbidden words."""
    return json.dumps(answer)
