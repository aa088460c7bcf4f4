"""A node in this process: a simulated host, an embedded kubelet, and what both hold.

Threads read the host and inotify watches it, so time cannot jump here; a `MockClock` with a rate
makes the daemon's seconds shorter instead.
"""

import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from biren_plugin.core.settings import Settings
from biren_plugin.daemon import run_daemon
from biren_plugin.simulate.host import SimulatedHost
from biren_plugin.simulate.kubelet import SimulatedKubelet, View
from tests.support.clocks import patience
from tests.support.host_truth import Devices, is_settled, truth

GPU: Final = "birentech.com/gpu"
HALF: Final = "birentech.com/1-2-gpu"
QUARTER: Final = "birentech.com/1-4-gpu"


class NodeInProcess:
    """The node whose host and kubelet's directory are in `folder`, which must be empty."""

    def __init__(self, folder: Path) -> None:
        self.host = SimulatedHost(folder / "host")
        self.plugins = folder / "plugins"
        self.plugins.mkdir()
        self.kubelet = SimulatedKubelet(self.plugins)
        self.settings = Settings(
            host_root=self.host.root,
            device_plugin_dir=self.plugins,
            pod_resources_dir=folder / "pod-resources",
            recover_after=0.0,
            status_dir=folder / "status",
        )
        self._kubelets_life: trio.CancelScope | None = None

    def cards(self) -> list[str]:
        """Names of the cards in sysfs."""
        return sorted(path.name for path in (self.host.root / "sys/class/biren").iterdir())

    def truth(self) -> Devices:
        """What a kubelet should see of the host as it is."""
        return truth(self.host.root)

    def settled(self) -> bool:
        """Whether each GPU has as many cards as a split has."""
        return is_settled(self.host.root)

    def node_of(self, card: str) -> Path:
        """Where the card's device node is."""
        return self.host.root / "dev/biren" / card

    def seen(self) -> Devices:
        """What the kubelet sees."""
        return _devices(self.kubelet.view.latest or View())

    async def sees(self, devices: Devices) -> None:
        """Wait until the kubelet sees just these devices."""
        with trio.move_on_after(patience()) as waiting:
            await self.kubelet.view.wait_for(lambda view: _devices(view) == devices)
        assert not waiting.cancelled_caught, f"the kubelet sees {self.seen()}, the host {devices}"

    @property
    def kubelet_runs(self) -> bool:
        """Whether one was started and not stopped."""
        return self._kubelets_life is not None

    async def start_kubelet(self, nursery: trio.Nursery) -> None:
        """Starts a kubelet, after the end of the one that runs."""
        self.stop_kubelet()
        self._kubelets_life = trio.CancelScope()
        await nursery.start(self._run_kubelet, self._kubelets_life)

    def stop_kubelet(self) -> None:
        """Ends the kubelet, if one runs."""
        if self._kubelets_life is not None:
            self._kubelets_life.cancel()
            self._kubelets_life = None

    async def _run_kubelet(
        self, life: trio.CancelScope, *, task_status: trio.TaskStatus[None]
    ) -> None:
        with life:
            await self.kubelet.run(task_status=task_status)

    def make_folder_anew(self) -> None:
        """Delete the kubelet's directory with its content, and create another."""
        shutil.rmtree(self.plugins)
        self.plugins.mkdir()

    @contextlib.asynccontextmanager
    async def running(self, **settings: Any) -> AsyncIterator[trio.Nursery]:
        """Kubelet and daemon for the length of the block; a nursery for more."""
        async with trio.open_nursery() as nursery:
            await self.start_kubelet(nursery)
            nursery.start_soon(run_daemon, attrs.evolve(self.settings, **settings))
            yield nursery
            nursery.cancel_scope.cancel()


async def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds that no event announces."""
    with trio.fail_after(patience()):
        while not holds():  # noqa: ASYNC110 - files and log lines set no event
            await trio.sleep(0.1)  # on a mock clock that runs 20 times as fast


def _devices(view: View) -> Devices:
    return {
        resource: {device.id: device.healthy for device in devices}
        for resource, devices in view.devices.items()
        if devices
    }
