"""gRPC on Unix sockets: purerpc's generated classes, statuses and message encoding; the rest is ours.

From the bytes up: `http2` cuts bytes into frames and sets up h2, which interprets them, `outbox` writes,
`connection` holds these together, `call` is one call, `headers` reads and writes gRPC's header lists,
`grpc_server` and `client` are the two ends, `limits` has every bound. One rule holds for every module:
**whatever the other side does, every task ends with its cause, and the next call works.**

How the traps of purerpc 0.8.0 are avoided:

| trap, and where upstream has it | here |
| --- | --- |
| TCP options on every socket (`SocketWrapper._set_socket_options`) | `unix_sockets` |
| bare `except:` swallows `Cancelled` and bugs (`server.ConnectionHandler`) | `grpc_server` catches `Exception` in the call's task, answers, and calls `on_bug` |
| a reset cancels no handler (`GRPCConnection._stream_reset`) | `Call.fail` cancels the handler's scope |
| one bad frame ends every stream (`GRPCSocket._listen`, `grpclib.receive_data`) | `http2`: one frame at a time; a call's errors end that call only |
| a send waits forever for a window (`GRPCStream._send`) | `Call.fail` wakes it; `limits.unread` ends it |
| `grpc-timeout` ignored | the deadline of the handler's scope |
| unbounded buffers, 32 MiB messages, 65,536 streams, 1 GiB window (`grpclib.config`) | `limits` |
| some 90 bytes kept for each DATA frame, however small (`buffers.ByteBuffer`) | `call` reads messages itself |
| stubs take no timeout, and leave a generator to the collector (`client`, `wrappers`) | callers set deadlines; `client.responses` |
| a servicer's exception text goes to the peer | an opaque INTERNAL; the text stays in our log |
| h2 is patched where purerpc is imported (`_h2_monkeypatch`) | relied on: a reset of a closed stream is not an error |
"""

from biren_plugin.wire.unix_grpc.call import CallEnded
from biren_plugin.wire.unix_grpc.client import Channel, responses, take_answer, with_channel
from biren_plugin.wire.unix_grpc.connection import ConnectionEnded
from biren_plugin.wire.unix_grpc.grpc_server import Server, bug_limit
from biren_plugin.wire.unix_grpc.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "DEFAULT_LIMITS",
    "CallEnded",
    "Channel",
    "ConnectionEnded",
    "Limits",
    "Server",
    "bug_limit",
    "responses",
    "take_answer",
    "with_channel",
]
