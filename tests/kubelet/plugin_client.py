"""One device plugin as the kubelet holds it: one connection, one stream, a few calls.

`PluginClient` moves bytes and keeps no beliefs. It learns a plugin's options, yields the lists
of its stream, and makes the calls of admission. It decides nothing about what they mean.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc

from tests.kubelet.protos import load

_OPTIONS = (
    # Two clients of one endpoint must be two connections, as in Go; grpcio would share one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
PRE_START_DEADLINE = 30.0
_numbers = itertools.count(1)


class PluginUnreachableError(Exception):
    """The plugin's socket could not be dialled, or it gave no options; the text says which."""


class PluginClient:
    """A connection to the plugin that serves `resource` on `socket`; owns its channel."""

    def __init__(self, resource: str, socket: Path) -> None:
        self.resource = resource
        self.socket = socket
        self.number = next(_numbers)
        """Tells the streams of one kubelet apart in its events."""
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=_OPTIONS)
        self._stub = load().stub(self._channel, "DevicePlugin")
        self._stream: Any = None

    def dial(self, timeout: float) -> None:
        """Wait until connected, at most `timeout` seconds; raises PluginUnreachableError."""
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=timeout)
        except grpc.FutureTimeoutError:
            ready.cancel()
            self.close()
            raise PluginUnreachableError(
                "failed to dial device plugin: context deadline exceeded"
            ) from None

    def get_options(self) -> dict[str, bool]:
        """Ask for the plugin's options, without a deadline; raises PluginUnreachableError."""
        try:
            options = self._stub.GetDevicePluginOptions(load().Empty())
        except grpc.RpcError as error:
            raise PluginUnreachableError(
                f"failed to get device plugin options: {rpc_text(error)}"
            ) from error
        return options_as_dict(options)

    def open_stream(self) -> None:
        """Call ListAndWatch, without a deadline."""
        self._stream = self._stub.ListAndWatch(load().Empty())

    def lists(self) -> Iterator[Any]:
        """Each list as it comes, until the stream ends in whatever way; see `ending`."""
        try:
            yield from self._stream
        except grpc.RpcError:
            return

    def ending(self) -> tuple[str, str]:
        """The name of the ended stream's status code, and its details."""
        return self._stream.code().name, self._stream.details() or ""

    def cancel_stream(self) -> None:
        """End the stream from this side (RST_STREAM); the connection stays."""
        if self._stream is not None:
            self._stream.cancel()

    def prefer(self, available: Sequence[str], must_include: Sequence[str], size: int) -> list[str]:
        """The ids that the plugin would rather give; raises grpc.RpcError."""
        protos = load()
        container = protos.ContainerPreferredAllocationRequest(
            available_deviceIDs=available, must_include_deviceIDs=must_include, allocation_size=size
        )
        response = self._stub.GetPreferredAllocation(
            protos.PreferredAllocationRequest(container_requests=[container])
        )
        containers = response.container_responses
        return list(containers[0].deviceIDs) if containers else []

    def allocate(self, requests: Sequence[Sequence[str]]) -> list[Any]:
        """Allocate one list of ids for each container; raises grpc.RpcError."""
        protos = load()
        containers = [protos.ContainerAllocateRequest(devices_ids=ids) for ids in requests]
        response = self._stub.Allocate(protos.AllocateRequest(container_requests=containers))
        return list(response.container_responses)

    def pre_start(self, ids: Sequence[str]) -> None:
        """Tell the plugin that the container of `ids` is about to start; raises grpc.RpcError."""
        request = load().PreStartContainerRequest(devices_ids=ids)
        self._stub.PreStartContainer(request, timeout=PRE_START_DEADLINE)

    def close(self) -> None:
        """Close the connection and with it the stream."""
        self._channel.close()


def options_as_dict(options: Any) -> dict[str, bool]:
    """A DevicePluginOptions message as a dict under the schema's names."""
    return {
        "pre_start_required": options.pre_start_required,
        "get_preferred_allocation_available": options.get_preferred_allocation_available,
    }


def rpc_text(error: Any) -> str:
    """An RPC error as Go prints it into the kubelet's messages."""
    return f"rpc error: code = {error.code().name} desc = {error.details()}"
