"""The DevicePlugin and Registration services in the core's types: the plugin's side, and the kubelet's."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Protocol

import trio
from purerpc import FailedPreconditionError, InvalidArgumentError, RpcFailedError
from purerpc.grpclib.exceptions import ProtocolError

from biren_plugin.core.admission import PreferenceRequest
from biren_plugin.core.container_edits import ContainerEdits
from biren_plugin.core.inventory.removal_delay import ALLOCATE_DEADLINE
from biren_plugin.core.model import DeviceList
from biren_plugin.errors import InvalidRequest, NotReady, RegistrationFailed, RequestRefused
from biren_plugin.wire import messages
from biren_plugin.wire._proto import deviceplugin_pb2 as pb
from biren_plugin.wire._proto.deviceplugin_grpc import (
    DevicePluginServicer,
    DevicePluginStub,
    RegistrationServicer,
    RegistrationStub,
)
from biren_plugin.wire.messages import ListedDevice, PluginOptions, Registration
from biren_plugin.wire.unix_grpc import (
    DEFAULT_LIMITS,
    CallEnded,
    Channel,
    Limits,
    Server,
    responses,
    with_channel,
)


class Plugin(Protocol):
    """Answers the calls. A `RequestRefused` that it raises becomes a gRPC status by its class."""

    @property
    def watch(self) -> Callable[[], AsyncGenerator[DeviceList, None]]:
        """Opens the lists of one stream."""

    async def prefer(self, requests: Sequence[PreferenceRequest]) -> list[list[str]]:
        """Return the ids to choose, for each container."""

    async def allocate(self, requests: Sequence[Sequence[str]]) -> list[ContainerEdits]:
        """Return what each container gets for its ids."""


def new_server(plugin: Plugin, on_bug: Callable[[Exception], None]) -> Server:
    """A gRPC server of `plugin`'s five methods."""
    return Server([_Servicer(plugin)], Limits(answer=ALLOCATE_DEADLINE), on_bug)


class _Servicer(DevicePluginServicer):
    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin

    async def GetDevicePluginOptions(self, _request: pb.Empty) -> pb.DevicePluginOptions:
        return messages.write_options(PluginOptions())

    async def ListAndWatch(  # type: ignore[override]  # purerpc's base is not a generator
        self, _request: pb.Empty
    ) -> AsyncIterator[pb.ListAndWatchResponse]:
        async with contextlib.aclosing(self._plugin.watch()) as lists:
            async for devices in lists:
                yield messages.write_list(devices)

    async def GetPreferredAllocation(
        self, request: pb.PreferredAllocationRequest
    ) -> pb.PreferredAllocationResponse:
        preferences = [
            PreferenceRequest(
                tuple(each.available_deviceIDs),
                tuple(each.must_include_deviceIDs),
                each.allocation_size,
            )
            for each in request.container_requests
        ]
        with _refusals_as_status():
            choices = await self._plugin.prefer(preferences)
        response = pb.PreferredAllocationResponse()
        for choice in choices:
            response.container_responses.add(deviceIDs=choice)
        return response

    async def Allocate(self, request: pb.AllocateRequest) -> pb.AllocateResponse:
        with _refusals_as_status():
            edits = await self._plugin.allocate(
                [each.devices_ids for each in request.container_requests]
            )
        return messages.write_allocation(edits)

    async def PreStartContainer(
        self, _request: pb.PreStartContainerRequest
    ) -> pb.PreStartContainerResponse:
        return pb.PreStartContainerResponse()


@contextlib.contextmanager
def _refusals_as_status() -> Iterator[None]:
    try:
        yield
    except InvalidRequest as error:
        raise InvalidArgumentError(str(error)) from error
    except NotReady as error:
        raise FailedPreconditionError(str(error)) from error


class PluginClient:
    """The kubelet's side of the conversation. Calls raise purerpc's `RpcFailedError`."""

    def __init__(self, channel: Channel) -> None:
        self._stub = DevicePluginStub(channel)  # type: ignore[no-untyped-call]

    async def options(self) -> PluginOptions:
        """`GetDevicePluginOptions`."""
        return messages.read_options(await self._stub.GetDevicePluginOptions(pb.Empty()))

    async def lists(self) -> AsyncGenerator[list[ListedDevice], None]:
        """`ListAndWatch`: yield each list as it arrives, until the plugin ends the stream."""
        async with contextlib.aclosing(responses(self._stub.ListAndWatch, pb.Empty())) as lists:
            async for response in lists:
                yield messages.read_list(response)

    async def prefer(self, available: Sequence[str], size: int) -> list[str]:
        """`GetPreferredAllocation` for one container."""
        request = pb.PreferredAllocationRequest()
        request.container_requests.add(available_deviceIDs=available, allocation_size=size)
        response = await self._stub.GetPreferredAllocation(request)
        return list(response.container_responses[0].deviceIDs)

    async def allocate(self, ids: Sequence[str]) -> ContainerEdits:
        """`Allocate` for one container."""
        request = pb.AllocateRequest()
        request.container_requests.add(devices_ids=ids)
        return messages.read_allocation(await self._stub.Allocate(request))[0]


async def register(stream: trio.abc.Stream, registration: Registration, deadline: float) -> None:
    """Call `Register` over `stream`, a connection to kubelet.sock, and close the stream.

    Raises `RegistrationFailed` if the kubelet refused, broke off, or did not answer in `deadline` seconds.
    """

    async def call(channel: Channel) -> None:
        stub = RegistrationStub(channel)  # type: ignore[no-untyped-call]
        await stub.Register(messages.write_registration(registration))

    try:
        with trio.fail_after(deadline):
            await with_channel(stream, call)
    except RpcFailedError as error:
        raise RegistrationFailed(f"the kubelet refused: {error.status}") from error
    except (CallEnded, ProtocolError) as error:
        raise RegistrationFailed(f"the kubelet broke off: {error}") from error
    except trio.TooSlowError as error:
        raise RegistrationFailed(f"the kubelet did not answer in {deadline:g} s") from error


def new_registration_server(
    take: Callable[[Registration], Awaitable[None]], on_bug: Callable[[Exception], None]
) -> Server:
    """Return a kubelet's gRPC server, which calls `take` in each `Register` and passes its refusals on."""
    return Server([_RegistrationServicer(take)], DEFAULT_LIMITS, on_bug)


class _RegistrationServicer(RegistrationServicer):
    def __init__(self, take: Callable[[Registration], Awaitable[None]]) -> None:
        self._take = take

    async def Register(self, request: pb.RegisterRequest) -> pb.Empty:
        try:
            await self._take(messages.read_registration(request))
        except RequestRefused as error:
            raise InvalidArgumentError(str(error)) from error
        return pb.Empty()
