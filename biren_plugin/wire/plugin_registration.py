"""The kubelet's plugin registration in the core's types: the plugin's side, which is the server."""

from collections.abc import Callable

import attrs

from biren_plugin.wire._proto import pluginregistration_pb2 as pb
from biren_plugin.wire._proto.pluginregistration_grpc import RegistrationServicer
from biren_plugin.wire.unix_grpc import Limits, Server


@attrs.frozen
class PluginInfo:
    """The driver's information for the kubelet."""

    name: str
    endpoint: str
    """The path of its socket, the same in the container and on the host."""
    versions: tuple[str, ...]


def new_info_server(
    info: PluginInfo, on_status: Callable[[str], None], on_bug: Callable[[Exception], None]
) -> Server:
    """Return a server of `GetInfo`; `on_status` gets the kubelet's refusal, or an empty text for registered."""
    return Server([_Servicer(info, on_status)], Limits(), on_bug)


class _Servicer(RegistrationServicer):
    def __init__(self, info: PluginInfo, on_status: Callable[[str], None]) -> None:
        self._info = info
        self._on_status = on_status

    async def GetInfo(self, _request: pb.InfoRequest) -> pb.PluginInfo:
        return pb.PluginInfo(
            type="DRAPlugin",
            name=self._info.name,
            endpoint=self._info.endpoint,
            supported_versions=self._info.versions,
        )

    async def NotifyRegistrationStatus(
        self, request: pb.RegistrationStatus
    ) -> pb.RegistrationStatusResponse:
        registered = request.plugin_registered
        self._on_status("" if registered else request.error or "refused without a reason")
        return pb.RegistrationStatusResponse()
