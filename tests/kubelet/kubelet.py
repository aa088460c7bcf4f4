"""The kubelet: it cleans its directory, serves Registration, and holds a client for each resource.

1. At start every socket in the folder is deleted, then `kubelet.sock` is created.
2. `during` (1.25 and later): the plugin is dialled and asked for its options before Register is
   answered, and Register fails if that does. `after` (older): it is answered first, and the
   options in the request are the ones that hold.
3. After the answer ListAndWatch is opened on that connection, and held for ever.
4. A second Register for a resource replaces the client; both streams stay open.
5. When a stream ends, `during` disconnects the client that the resource *name* leads to, which
   may be a newer one. A Register that failed has left none there, so the end of the stream that
   was live before goes unnoticed.
6. The kubelet ends as its process does: its sockets are closed without a word, and
   `kubelet.sock` stays on disk. grpcio's own `Server.stop` would delete that file.
"""

import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NoReturn

import grpc

from tests.kubelet.manager import DeviceManager, Tell
from tests.kubelet.plugin_client import PluginClient, PluginUnreachableError, options_as_dict
from tests.kubelet.protos import load

VERSION = "v1beta1"
SOCKET = "kubelet.sock"
CHECKPOINT = "kubelet_internal_checkpoint"
Dials = Literal["during", "after"]

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


class Kubelet:
    """A kubelet on `folder`, which is made if it is missing.

    `dials` chooses its generation; `dial_timeout` is in seconds. With `hold` no Register is
    answered before `release`. `seed` makes its choices repeatable. `tell` takes each event's
    name and fields, from any thread, and must not call back.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dials: Dials = "during",
        hold: bool = False,
        dial_timeout: float = 10.0,
        seed: int | None = None,
        tell: Tell = lambda event, **fields: None,
    ) -> None:
        self.folder = folder.absolute()
        self.dials = dials
        self.dial_timeout = dial_timeout
        self.manager = DeviceManager(tell, self._panic, seed, self.folder / CHECKPOINT)
        self._tell = tell
        self._lock = threading.Lock()
        self._clients: dict[str, PluginClient] = {}
        self._replaced: list[PluginClient] = []
        self._refusal: str | None = None
        self._may_answer = threading.Event()
        if not hold:
            self._may_answer.set()
        self._server: Any = None

    def start(self) -> None:
        """Wipe the folder, then serve on a new `kubelet.sock`."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        self._wipe()
        self._server = grpc.server(ThreadPoolExecutor(max_workers=16))
        handler = load().handler("Registration", {"Register": self._register})
        self._server.add_generic_rpc_handlers((handler,))
        self._server.add_insecure_port(f"unix:{self.folder / SOCKET}")
        self._server.start()
        self._tell("listening", socket=str(self.folder / SOCKET))

    def stop(self) -> NoReturn:
        """Stop as a kubelet stops: the process ends here, see rule 6."""
        os._exit(0)

    def hold(self) -> None:
        """Leave each coming Register unanswered until `release`."""
        self._may_answer.clear()

    def release(self) -> None:
        """Answer the Registers that are held, and the coming ones at once."""
        self._may_answer.set()

    def refuse_next_register(self, text: str) -> None:
        """Answer the next Register with an error of this text."""
        with self._lock:
            self._refusal = text

    def end_stream(self, resource: str) -> bool:
        """Cancel the stream of the resource's client; False if it has none."""
        with self._lock:
            client = self._clients.get(resource)
        if client is None:
            return False
        client.cancel_stream()
        return True

    def _wipe(self) -> None:
        for path in self.folder.iterdir():
            stale = path.is_socket()
            if self.dials == "after":
                stale = path.name != CHECKPOINT and not path.is_dir()
            if stale:
                path.unlink(missing_ok=True)  # a plugin may take its own away meanwhile

    def _register(self, request: Any, context: Any) -> Any:
        resource = request.resource_name
        self._tell("register", resource=resource, endpoint=request.endpoint)
        with self._lock:
            refusal, self._refusal = self._refusal, None
        if refusal := refusal or _invalid(request):
            self._refuse(request, context, refusal)
        client = PluginClient(resource, self.folder / request.endpoint)
        options = options_as_dict(request.options)
        if self.dials == "during":
            self._keep(client)
            try:
                options = self._connect(client)
            except PluginUnreachableError as error:
                with self._lock:
                    self._clients.pop(resource, None)
                self._refuse(request, context, str(error))
            self.manager.connected(client, options)
        if not self._may_answer.is_set():
            self._tell("register_held", resource=resource, endpoint=request.endpoint)
            self._may_answer.wait()

        def answered() -> None:
            self._tell(
                "registered",
                resource=resource,
                endpoint=request.endpoint,
                options=options,
                stream=client.number,
            )
            watch = self._watch if self.dials == "during" else self._dial_and_watch
            _in_thread(lambda: watch(client, options))

        if not context.add_callback(answered):
            answered()  # The plugin has given its call up; a kubelet goes on all the same.
        return load().Empty()

    def _refuse(self, request: Any, context: Any, text: str) -> NoReturn:
        self._tell(
            "register_refused",
            resource=request.resource_name,
            endpoint=request.endpoint,
            details=text,
        )
        context.abort(grpc.StatusCode.UNKNOWN, text)  # What a plain Go error becomes.
        raise AssertionError("abort returned")

    def _keep(self, client: PluginClient) -> None:
        with self._lock:
            if client.resource in self._clients:
                # Held on to, because grpcio would close its connection with the last reference.
                self._replaced.append(self._clients[client.resource])
            self._clients[client.resource] = client

    def _connect(self, client: PluginClient) -> dict[str, bool]:
        client.dial(self.dial_timeout)
        options = client.get_options()
        self._tell(
            "dialled", resource=client.resource, endpoint=client.socket.name, options=options
        )
        return options

    def _dial_and_watch(self, client: PluginClient, options: dict[str, bool]) -> None:
        try:
            client.dial(self.dial_timeout)
        except PluginUnreachableError as error:
            self._tell("dial_failed", resource=client.resource, details=str(error))
            return
        self._tell("dialled", resource=client.resource, endpoint=client.socket.name)
        self._keep(client)
        self.manager.connected(client, options)
        self._watch(client, options)

    def _watch(self, client: PluginClient, _options: dict[str, bool]) -> None:
        client.open_stream()
        for response in client.lists():
            self.manager.listed(client, response)
        code, details = client.ending()
        self._tell(
            "stream_ended",
            resource=client.resource,
            endpoint=client.socket.name,
            stream=client.number,
            code=code,
            details=details,
        )
        self._stream_ended(client)

    def _stream_ended(self, client: PluginClient) -> None:
        with self._lock:
            found = self._clients.get(client.resource)
            if self.dials == "after" and found is not client:
                return  # Older kubelets compare clients, not names.
            self._clients.pop(client.resource, None)
        if found is not None:
            found.close()
            self.manager.disconnected(client.resource)

    def _panic(self, text: str) -> NoReturn:
        self._tell("panicked", details=text)
        os._exit(2)


def _invalid(request: Any) -> str | None:
    if request.version != VERSION:
        return (
            f'requested API version "{request.version}" is not supported by kubelet. '
            f'Supported version is ["{VERSION}"]'
        )
    if not is_extended_resource_name(request.resource_name):
        return f'the ResourceName "{request.resource_name}" is invalid'
    return None


def is_extended_resource_name(name: str) -> bool:
    """Whether `name` is a vendor's: a domain that is not Kubernetes' own, and a short name."""
    domain, slash, short = name.partition("/")
    return bool(
        slash
        and "kubernetes.io/" not in name
        and not name.startswith("requests.")
        and len(domain) <= 253 - len("requests.")  # A quota is named after it.
        and _DOMAIN.fullmatch(domain)
        and _NAME.fullmatch(short)
    )


def _in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()
