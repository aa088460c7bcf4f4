"""The embedded kubelet accepts plugins like the real one: a missing plugin is only refused."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from biren_plugin.device_plugin.kubelet_folder import KUBELET_SOCKET
from biren_plugin.errors import RegistrationFailed
from biren_plugin.simulate.kubelet import NotAdmitted, SimulatedKubelet
from biren_plugin.unix_sockets import UnixListener
from biren_plugin.wire.device_plugin import register
from biren_plugin.wire.messages import Registration

RESOURCE = "birentech.com/gpu"


@pytest.fixture
def folder(short_path: Path) -> Path:
    return short_path


async def ask(folder: Path, registration: Registration) -> None:
    """One `Register`; raises `RegistrationFailed`."""
    stream = await trio.open_unix_socket(folder / KUBELET_SOCKET)
    await register(stream, registration, deadline=20)


async def test_a_plugin_without_its_socket_is_refused(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(SimulatedKubelet(folder).run)
        for _ in range(2):
            with pytest.raises(RegistrationFailed, match=r"the kubelet refused"):
                await ask(folder, Registration("gone.sock", RESOURCE))
        nursery.cancel_scope.cancel()


async def test_a_plugin_that_hangs_up_when_dialled_is_refused(
    folder: Path, autojump_clock: MockClock
) -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        await nursery.start(SimulatedKubelet(folder).run)
        listener = UnixListener(folder / "plugin.sock")
        nursery.start_soon(trio.serve_listeners, hang_up, [listener])
        for _ in range(2):
            with pytest.raises(RegistrationFailed, match=r"the kubelet refused"):
                await ask(folder, Registration("plugin.sock", RESOURCE))
        nursery.cancel_scope.cancel()


async def test_another_version_of_the_api_is_refused(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(SimulatedKubelet(folder).run)
        with pytest.raises(RegistrationFailed, match=r"version 'v1alpha' is not supported"):
            await ask(folder, Registration("plugin.sock", RESOURCE, "v1alpha"))
        nursery.cancel_scope.cancel()


async def test_the_start_removes_the_sockets_in_the_directory(
    folder: Path, autojump_clock: MockClock
) -> None:
    (folder / "stale.sock").touch()
    (folder / "kubelet_internal_checkpoint").touch()
    async with trio.open_nursery() as nursery:
        await nursery.start(SimulatedKubelet(folder).run)
        names = sorted(path.name for path in folder.iterdir())
        assert names == [KUBELET_SOCKET, "kubelet_internal_checkpoint"]
        nursery.cancel_scope.cancel()


async def test_a_pod_without_a_free_card_is_not_admitted(
    folder: Path, autojump_clock: MockClock
) -> None:
    with pytest.raises(NotAdmitted, match=r"0 of birentech.com/gpu are free, 1 are requested"):
        await SimulatedKubelet(folder).admit(RESOURCE, 1)
