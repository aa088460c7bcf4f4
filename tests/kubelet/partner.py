"""A device plugin whose side of a conversation a table dictates, one call a step."""

import queue
import threading
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc

from tests.kubelet.protos import load

_DEADLINE: Final = 15.0
"""Seconds for a Register: above the kubelet's ten for dialling back."""


class Partner:
    """A plugin on grpcio that offers `resource` on a socket of its own in the kubelet's directory.

    Each stream gets the last list when it opens, and every list after it. Allocate answers with the
    plugin's name and the number of ids in the variable BR_PHY_CARDS: which ids, is the kubelet's whim.
    """

    def __init__(self, directory: Path, name: str, resource: str) -> None:
        self.name = name
        self._directory = directory
        self._resource = resource
        # A path to a socket has 107 bytes; conversations about other resources go on beside this one.
        self._socket = f"{name}-{zlib.crc32(resource.encode()):08x}.sock"
        self._devices: dict[str, str] = {}
        self._lock = threading.Lock()
        self._streams: list[queue.Queue[dict[str, str] | None]] = []
        self._server: Any = None

    @property
    def open_streams(self) -> int:
        """Streams that neither side has ended."""
        with self._lock:
            return len(self._streams)

    def register(self) -> str:
        """Serves, if it does not yet, and registers: "accepted", or the kubelet's refusal."""
        self._serve()
        return self._register()

    def register_without_serving(self) -> str:
        """Registers a socket that is not there; as `register`."""
        return self._register()

    def offer(self, devices: Mapping[str, str]) -> None:
        """Sends a list: the health of each id."""
        with self._lock:
            self._devices = dict(devices)
            for stream in self._streams:
                stream.put(self._devices)

    def end_streams(self) -> None:
        """Ends its streams as a server does that has no more to say; it serves on."""
        with self._lock:
            for stream in self._streams:
                stream.put(None)

    def leave(self) -> None:
        """Ends as a process does: connections close and the socket is gone."""
        self.end_streams()
        if self._server is not None:
            self._server.stop(None).wait()
            self._server = None
        (self._directory / self._socket).unlink(missing_ok=True)

    def _register(self) -> str:
        protos = load()
        request = protos.RegisterRequest(
            version="v1beta1", endpoint=self._socket, resource_name=self._resource
        )
        with grpc.insecure_channel(f"unix:{self._directory / 'kubelet.sock'}") as channel:
            try:
                protos.stub(channel, "Registration").Register(request, timeout=_DEADLINE)
            except grpc.RpcError as error:
                return str(error.details())
        return "accepted"

    def _serve(self) -> None:
        socket = self._directory / self._socket
        if self._server is not None and socket.exists():
            return
        self.leave()  # a kubelet that starts deletes the sockets
        protos = load()
        methods = {
            "GetDevicePluginOptions": lambda _request, _context: protos.DevicePluginOptions(),
            "Allocate": self._allocate,
            "ListAndWatch": self._watch,
        }
        self._server = grpc.server(ThreadPoolExecutor(8))
        self._server.add_generic_rpc_handlers((protos.handler("DevicePlugin", methods),))
        self._server.add_insecure_port(f"unix:{socket}")
        self._server.start()

    def _allocate(self, request: Any, _context: Any) -> Any:
        protos = load()
        answers = [
            protos.ContainerAllocateResponse(
                envs={"BR_PHY_CARDS": f"{self.name}:{len(each.devices_ids)}"}
            )
            for each in request.container_requests
        ]
        return protos.AllocateResponse(container_responses=answers)

    def _watch(self, _request: Any, context: Any) -> Iterator[Any]:
        lists: queue.Queue[dict[str, str] | None] = queue.Queue()
        context.add_callback(lambda: self._closed(lists))
        with self._lock:
            lists.put(self._devices)
            self._streams.append(lists)
        protos = load()
        while (devices := lists.get()) is not None:
            listed = [protos.Device(ID=id_, health=health) for id_, health in devices.items()]
            yield protos.ListAndWatchResponse(devices=listed)

    def _closed(self, lists: "queue.Queue[dict[str, str] | None]") -> None:
        lists.put(None)
        with self._lock:
            if lists in self._streams:
                self._streams.remove(lists)
