"""The Registration service in the core's types: the plugin's side, and the kubelet's."""

from collections.abc import Awaitable, Callable

import trio
from purerpc import InvalidArgumentError, RpcFailedError
from purerpc.grpclib.exceptions import ProtocolError

from biren_plugin.errors import RegistrationFailed, RequestRefused
from biren_plugin.wire import messages
from biren_plugin.wire._proto import deviceplugin_pb2 as pb
from biren_plugin.wire._proto.deviceplugin_grpc import RegistrationServicer, RegistrationStub
from biren_plugin.wire.messages import Registration
from biren_plugin.wire.unix_grpc import DEFAULT_LIMITS, CallEnded, Channel, Server, with_channel


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
    return Server([_Servicer(take)], DEFAULT_LIMITS, on_bug)


class _Servicer(RegistrationServicer):
    def __init__(self, take: Callable[[Registration], Awaitable[None]]) -> None:
        self._take = take

    async def Register(self, request: pb.RegisterRequest) -> pb.Empty:
        try:
            await self._take(messages.read_registration(request))
        except RequestRefused as error:
            raise InvalidArgumentError(str(error)) from error
        return pb.Empty()
