"""`python -m tests.kubelet.rival FOLDER RESOURCE ID...`: another device plugin, that registers once.

It serves on `--socket` in FOLDER, registers RESOURCE with the kubelet there, lists the IDs as healthy
and allocates them with nothing in its answers. It says `registered` on stdout, and ends as SIGTERM or
SIGKILL end it: killed, it leaves its socket.
"""

import argparse
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from tests.kubelet.protos import load


class RivalPlugin:
    """A plugin for `resource` on the socket `name` in `folder`."""

    def __init__(self, folder: Path, name: str, resource: str, ids: list[str]) -> None:
        self._folder = folder
        self._name = name
        self._resource = resource
        self._ids = ids
        self._ended = threading.Event()
        self._server: Any = None

    def start(self) -> None:
        """Serve, then register."""
        protos = load()
        self._server = grpc.server(ThreadPoolExecutor(max_workers=8))
        methods = {
            "GetDevicePluginOptions": lambda _request, _context: protos.DevicePluginOptions(),
            "ListAndWatch": self._list,
            "Allocate": self._allocate,
        }
        handler = protos.handler("DevicePlugin", methods)
        self._server.add_generic_rpc_handlers((handler,))
        (self._folder / self._name).unlink(missing_ok=True)
        self._server.add_insecure_port(f"unix:{self._folder / self._name}")
        self._server.start()
        with grpc.insecure_channel(f"unix:{self._folder / 'kubelet.sock'}") as channel:
            request = protos.RegisterRequest(
                version="v1beta1", endpoint=self._name, resource_name=self._resource
            )
            protos.stub(channel, "Registration").Register(request, timeout=10)

    def stop(self) -> None:
        """End the streams, and remove the socket."""
        self._ended.set()
        self._server.stop(None).wait()
        (self._folder / self._name).unlink(missing_ok=True)

    def _list(self, _request: Any, _context: Any) -> Iterator[Any]:
        response = load().ListAndWatchResponse()
        for id_ in self._ids:
            response.devices.add(ID=id_, health="Healthy")
        yield response
        self._ended.wait()

    def _allocate(self, request: Any, _context: Any) -> Any:
        response = load().AllocateResponse()
        for _ in request.container_requests:
            response.container_responses.add()
        return response


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(prog="python -m tests.kubelet.rival")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("resource", metavar="RESOURCE")
    parser.add_argument("ids", nargs="+", metavar="ID")
    parser.add_argument("--socket", default="vendor.sock")
    flags = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    plugin = RivalPlugin(flags.folder, flags.socket, flags.resource, flags.ids)
    plugin.start()
    print("registered", flush=True)
    signal.sigwait({signal.SIGTERM})
    plugin.stop()


if __name__ == "__main__":
    main()
