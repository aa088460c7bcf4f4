"""What Allocate is compared with: servers that only return the same bytes.

`python -m tests.bench.floors KIND SOCKET`, KIND one of `ours` (wire/unix_grpc without handlers of
the plugin), `purerpc` (stock, on TCP: it has no Unix sockets; SOCKET is a port) and `grpcio` (the C
server). Prints a line when it listens.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

RESPONSE_NODES = ["/dev/biren/card_0", "/dev/biren-m"]


def serve_ours(socket: str) -> None:
    """On our own connection and call handling."""
    import trio

    from biren_plugin.unix_sockets import UnixListener
    from biren_plugin.wire.unix_grpc import DEFAULT_LIMITS, Server

    async def serve() -> None:
        server = Server([_servicer()], DEFAULT_LIMITS, on_bug=_raise)
        listener = UnixListener(Path(socket))
        print("listening", flush=True)
        await trio.serve_listeners(server.handle, [listener])

    trio.run(serve)


def serve_purerpc(port: str) -> None:
    """On purerpc's own server, over trio."""
    import purerpc

    server = purerpc.Server(int(port))
    server.add_service(_servicer().service)
    print("listening", flush=True)
    server.serve(backend="trio")


def serve_grpcio(socket: str) -> None:
    """On grpcio's C core."""
    import grpc

    answer = _response().SerializeToString()
    handler = grpc.method_handlers_generic_handler(
        "v1beta1.DevicePlugin",
        {"Allocate": grpc.unary_unary_rpc_method_handler(lambda _request, _context: answer)},
    )
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    print("listening", flush=True)
    server.wait_for_termination()


def _response() -> Any:
    from biren_plugin.wire._proto import deviceplugin_pb2 as pb

    message = pb.AllocateResponse()
    container = message.container_responses.add(envs={"BR_PHY_CARDS": "card_0"})
    for path in RESPONSE_NODES:
        container.devices.add(container_path=path, host_path=path, permissions="rw")
    return message


def _servicer() -> Any:
    from biren_plugin.wire._proto import deviceplugin_pb2 as pb
    from biren_plugin.wire._proto.deviceplugin_grpc import DevicePluginServicer

    answer = _response()

    class Echo(DevicePluginServicer):
        async def Allocate(self, _request: pb.AllocateRequest) -> Any:  # noqa: N802 - gRPC's name
            return answer

    return Echo()


def _raise(error: Exception) -> None:
    raise error


if __name__ == "__main__":
    {"ours": serve_ours, "purerpc": serve_purerpc, "grpcio": serve_grpcio}[sys.argv[1]](sys.argv[2])
