"""An embedded kubelet: the parts of the real one that a device plugin meets.

It removes the sockets in its directory when it starts, dials back while `Register` waits, holds one
stream for each resource, and asks for a preference before it allocates. A later registration takes a
resource over while the earlier stream stays open; when a stream ends, the current plugin of the resource
is disconnected.
"""

import contextlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.core.card_names import by_number
from biren_plugin.core.container_edits import ContainerEdits
from biren_plugin.device_plugin.kubelet_folder import KUBELET_SOCKET
from biren_plugin.errors import InvalidRequest, PluginError
from biren_plugin.records import frozen
from biren_plugin.unix_sockets import UnixListener
from biren_plugin.wire.device_plugin import PluginClient, new_registration_server
from biren_plugin.wire.messages import ListedDevice, Registration
from biren_plugin.wire.unix_grpc import CallEnded, Channel, with_channel

_CALL_DEADLINE: Final = 10.0
"""Seconds; the real kubelet has no deadline for Allocate, but a demo must not hang."""


class NotAdmitted(PluginError):
    """The pod cannot start on this node."""


@frozen
class Pod:
    """A pod with one container that was admitted."""

    resource: str
    ids: tuple[str, ...]
    edits: ContainerEdits


@frozen
class View:
    """The kubelet's state."""

    devices: Mapping[str, tuple[ListedDevice, ...]] = attrs.Factory(dict)
    """The last list of each resource whose stream is open."""

    def healthy(self, resource: str) -> set[str]:
        """Return ids that may be allocated."""
        return {device.id for device in self.devices.get(resource, ()) if device.healthy}


class SimulatedKubelet:
    """One kubelet at a time in the directory `folder`; `run` is one life, and may be called again after it."""

    def __init__(self, folder: Path) -> None:
        self.view = Board[View]()
        self._folder = folder
        self._plugins: dict[str, tuple[PluginClient, trio.CancelScope]] = {}
        self._in_use: set[str] = set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Allocations outlive it, as in the real kubelet's checkpoint."""
        for path in self._folder.glob("*.sock"):
            path.unlink(missing_ok=True)
        self._plugins.clear()
        self.view.post(View())
        async with trio.open_nursery() as nursery:
            listener = UnixListener(self._folder / KUBELET_SOCKET)
            server = new_registration_server(partial(self._take, nursery), on_bug=_raise)
            nursery.start_soon(trio.serve_listeners, server.handle, [listener])
            task_status.started()

    async def _take(self, nursery: trio.Nursery, registration: Registration) -> None:
        if registration.version != "v1beta1":
            raise InvalidRequest(f"version {registration.version!r} is not supported")
        try:
            stream = await trio.open_unix_socket(self._folder / registration.endpoint)
        except OSError as error:
            raise InvalidRequest(f"cannot dial {registration.endpoint}: {error}") from error
        answered = await nursery.start(self._hold_plugin, registration.resource, stream)
        if not answered:
            raise InvalidRequest(f"{registration.endpoint} did not answer GetDevicePluginOptions")

    async def _hold_plugin(
        self, resource: str, stream: trio.SocketStream, *, task_status: trio.TaskStatus[bool]
    ) -> None:
        answered = False

        async def converse(channel: Channel) -> None:
            nonlocal answered
            plugin = PluginClient(channel)
            with trio.fail_after(_CALL_DEADLINE):
                await plugin.options()
            self._plugins[resource] = (plugin, connection)
            answered = True
            task_status.started(True)
            async with contextlib.aclosing(plugin.lists()) as lists:
                async for devices in lists:
                    self._see(resource, tuple(devices))

        connection = trio.CancelScope()
        with connection:
            try:
                await with_channel(stream, converse)
            except (CallEnded, trio.TooSlowError):
                if not answered:
                    task_status.started(False)
                    return
        if answered:
            self._disconnect(resource)

    def _disconnect(self, resource: str) -> None:
        """Disconnect by name, like the real kubelet: it may hit another plugin than the one whose stream ended."""
        if (found := self._plugins.pop(resource, None)) is None:
            return
        found[1].cancel()
        devices = self._devices().get(resource, ())
        self._see(resource, tuple(attrs.evolve(each, healthy=False) for each in devices))

    def _devices(self) -> Mapping[str, tuple[ListedDevice, ...]]:
        return self.view.latest.devices if self.view.latest is not None else {}

    def _see(self, resource: str, devices: tuple[ListedDevice, ...]) -> None:
        self.view.post(View({**self._devices(), resource: devices}))

    async def admit(self, resource: str, count: int) -> Pod:
        """Admit a pod that requests `count` of `resource`. Raises `NotAdmitted` and the plugin's refusal."""
        latest = self.view.latest or View()
        available = latest.healthy(resource) - self._in_use
        if len(available) < count:
            raise NotAdmitted(f"{len(available)} of {resource} are free, {count} are requested")
        plugin, _ = self._plugins[resource]
        with trio.fail_after(_CALL_DEADLINE):
            chosen = await plugin.prefer(sorted(available, key=by_number), count)
            edits = await plugin.allocate(chosen)
        self._in_use.update(chosen)
        return Pod(resource, tuple(chosen), edits)


def _raise(error: Exception) -> None:
    raise error
