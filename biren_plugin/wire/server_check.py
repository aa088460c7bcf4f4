"""Whether a gRPC server answers on a Unix socket, which an accepted connection alone does not show.

The kernel accepts connections for a process that is stopped (SIGSTOP) or hangs. So the server is called;
`GetDevicePluginOptions` has no effect, and a server of another service answers it with UNIMPLEMENTED.
"""

from pathlib import Path

import trio
from purerpc import RpcFailedError
from purerpc.grpclib.exceptions import ProtocolError

from biren_plugin.errors import reason_of
from biren_plugin.unix_sockets import connect
from biren_plugin.wire.device_plugin import PluginClient
from biren_plugin.wire.unix_grpc import CallEnded, Channel, with_channel
from biren_plugin.worker_thread import WorkerThread


async def why_silent(path: Path, deadline: float, thread: WorkerThread) -> str:
    """Return why no gRPC server answers at `path` within `deadline` seconds; empty if one does.

    `thread` looks up the path. Raises `PermissionError` if this user may not connect, and `NoThread`.
    """

    async def call(channel: Channel) -> None:
        await PluginClient(channel).options()

    try:
        with trio.fail_after(deadline):
            await with_channel(await connect(path, thread), call)
    except RpcFailedError:
        return ""  # an error status is an answer too
    except PermissionError:
        raise
    except OSError as error:
        return reason_of(error)
    except (CallEnded, ProtocolError) as error:
        return f"{error}"
    except trio.TooSlowError:
        return f"no answer in {deadline:g} s"
    return ""
