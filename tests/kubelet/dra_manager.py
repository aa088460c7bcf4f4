"""The kubelet's DRA half: it finds drivers in its registry, asks them for claims, and remembers.

1. A socket in `plugins_registry` is found within a second, at the manager's start too; names that begin
   with `.` are passed over. It is dialled, asked with GetInfo (1 s), validated, and only then told.
2. The DRA socket is dialled and its health stream opened before NotifyRegistrationStatus is called.
3. The first version in the driver's order that is known is used. None known: Notify(false, text).
4. A claim that is regarded as prepared is not prepared again while this manager lives; one that starts
   with a `checkpoint` regards it as prepared no more, but still knows its devices: a repeated Prepare
   appends to them.
5. Exactly one entry for each claim is demanded of an answer.
6. When a health stream ends, the health of the whole driver is forgotten; it is opened again 5 s later.
7. A removed registration socket deregisters. Of several instances the newest connected one is called.
"""

import contextlib
import queue
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import grpc

from tests.kubelet.plugin_client import rpc_text
from tests.kubelet.protos import load

_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.default_authority", "localhost"),
)
KNOWN = {"v1.DRAPlugin": "dra_v1", "v1beta1.DRAPlugin": "dra_v1beta1"}
GET_INFO_DEADLINE = 1.0
NOTIFY_DEADLINE = 5.0
PROBE_DEADLINE = 20.0
CALL_DEADLINE = 45.0
STREAM_AGAIN = 5.0


class PrepareError(Exception):
    """The pod cannot start: the text of its event FailedPrepareDynamicResources."""


class DriverInstance:
    """One registered instance of a driver."""

    def __init__(self, registration: Path, name: str, endpoint: Path, schema: str) -> None:
        self.registration = registration
        self.name = name
        self.endpoint = endpoint
        self.protos = load(schema)
        self.channel = grpc.insecure_channel(f"unix:{endpoint}", options=_OPTIONS)
        self.stub = self.protos.stub(self.channel, "DRAPlugin")
        self.closed = threading.Event()

    @property
    def connected(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:  # grpcio's own watch outlives its channel
            try:
                probe.connect(str(self.endpoint))
            except OSError:
                return False
        return True


class DraManager:
    """The DRA half of the kubelet whose root is `root`. Safe to call from any thread.

    `versions` are the plugin services that it knows. `tell` takes each event's name and fields.
    """

    def __init__(
        self,
        root: Path,
        *,
        versions: tuple[str, ...] = tuple(KNOWN),
        tell: Callable[..., None] = lambda event, **fields: None,
        checkpoint: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        self.registry = root / "plugins_registry"
        self.registry.mkdir(parents=True, exist_ok=True, mode=0o750)
        (root / "plugins").mkdir(exist_ok=True, mode=0o750)
        self.events: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self.checkpoint = checkpoint if checkpoint is not None else {}
        """By claim uid: namespace, name, pods, and devices with request, name and CDI names."""
        self.health: dict[str, tuple[str, str]] = {}
        """By device: HEALTHY, UNHEALTHY or UNKNOWN, and the message."""
        self.lists = 0
        """Health lists that were received."""
        self._versions = versions
        self._tell = tell
        self._prepared: set[str] = set()
        self._lock = threading.Lock()
        self._instances: list[DriverInstance] = []
        self._tried: dict[Path, tuple[int, int]] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        for each in self._instances:
            self._forget(each)

    def _say(self, event: str, **fields: Any) -> None:
        self.events.put((event, fields))
        self._tell(event, **fields)

    def wait_for(self, event: str, timeout: float = 20.0) -> dict[str, Any]:
        """The fields of the next event of that name; earlier ones of other names are passed over."""
        until = time.monotonic() + timeout
        while True:
            found, fields = self.events.get(timeout=max(until - time.monotonic(), 0.001))
            if found == event:
                return fields

    # Registration

    def _watch(self) -> None:
        while not self._closing.wait(0.02):  # inotify in the kubelet, which acts once a second
            there = {}
            for path in self.registry.iterdir():
                with contextlib.suppress(FileNotFoundError):  # it has just gone
                    status = path.stat()
                    if not path.name.startswith(".") and stat.S_ISSOCK(status.st_mode):
                        there[path] = (status.st_ino, status.st_mtime_ns)
            for each in list(self._instances):
                if there.get(each.registration) != self._tried.get(each.registration):
                    with self._lock:
                        self._instances.remove(each)
                    self._forget(each)
                    self._say("deregistered", endpoint=str(each.endpoint))
            for path, identity in there.items():
                if self._tried.get(path) != identity:
                    self._tried[path] = identity
                    self._register(path)
            for path in self._tried.keys() - there.keys():
                del self._tried[path]

    def _forget(self, instance: DriverInstance) -> None:
        instance.closed.set()
        instance.channel.close()

    def _register(self, path: Path) -> None:
        protos = load("pluginregistration")
        with grpc.insecure_channel(f"unix:{path}", options=_OPTIONS[:2]) as channel:
            stub = protos.stub(channel, "Registration")
            try:
                info = stub.GetInfo(protos.InfoRequest(), timeout=GET_INFO_DEADLINE)
                text = self._take(path, info)
                status = protos.RegistrationStatus(plugin_registered=not text, error=text)
                stub.NotifyRegistrationStatus(status, timeout=NOTIFY_DEADLINE)
            except grpc.RpcError as error:
                self._say("registration_failed", path=str(path), details=rpc_text(error))
                self._tried.pop(path, None)  # the kubelet backs off; this one only asks again
                return
        self._say("refused" if text else "registered", text=text, endpoint=info.endpoint)

    def _take(self, path: Path, info: Any) -> str:
        """Validates and connects; why not, if not."""
        if info.type != "DRAPlugin":
            return f"no handler registered for plugin type: {info.type}"
        schema = next(
            (KNOWN[each] for each in info.supported_versions if each in self._versions), None
        )
        if schema is None:
            return (
                f"none of services supported by the plugin ({list(info.supported_versions)}) "
                f"are supported by the kubelet ({list(self._versions)})"
            )
        if any(str(each.endpoint) == info.endpoint for each in self._instances):
            return f"the endpoint {info.endpoint} is already registered"
        instance = DriverInstance(path, info.name, Path(info.endpoint), schema)
        with self._lock:
            self._instances.append(instance)
        threading.Thread(target=self._follow_health, args=(instance,), daemon=True).start()
        return ""

    def _follow_health(self, instance: DriverInstance) -> None:
        protos = load("dra_health_v1alpha1")
        stub = protos.stub(instance.channel, "DRAResourceHealth")
        names = {0: "UNKNOWN", 1: "HEALTHY", 2: "UNHEALTHY"}
        while not instance.closed.is_set():
            try:
                for answer in stub.NodeWatchResources(protos.NodeWatchResourcesRequest()):
                    with self._lock:
                        for each in answer.devices:
                            state = names[each.health], each.message
                            self.health[each.device.device_name] = state
                        self.lists += 1
                        known = dict(self.health)
                    self._say("health", devices=known)
                details = "ended"
            except (grpc.RpcError, ValueError) as error:  # ValueError: the channel was closed
                details = rpc_text(error) if isinstance(error, grpc.RpcError) else str(error)
            with self._lock:
                self.health.clear()
            self._say("health_ended", endpoint=str(instance.endpoint), details=details)
            if instance.closed.wait(STREAM_AGAIN):
                return

    # Claims

    def instance(self, driver: str = "gpu.birentech.com") -> DriverInstance:
        """The newest connected instance. Raises PrepareError."""
        with self._lock:
            found = [each for each in self._instances if each.name == driver]
        for each in reversed(found):
            if each.connected:
                return each
        raise PrepareError(f"prepare dynamic resources: DRA driver {driver} is not registered")

    def prepare(self, pod: str, *claims: tuple[str, str, str]) -> dict[str, list[dict[str, Any]]]:
        """Prepares the claims (namespace, name, uid) for a pod that needs a sandbox; devices by uid.

        Raises PrepareError with the text of the pod's event.
        """
        for namespace, name, uid in claims:
            for known, entry in self.checkpoint.items():
                if (entry["namespace"], entry["name"]) == (namespace, name) and known != uid:
                    raise PrepareError(
                        f"old ResourceClaim with same name {name} and different UID {known} still exists"
                    )
        instance = self.instance()
        asked = [each for each in claims if each[2] not in self._prepared]
        if asked:
            self._call_prepare(instance, asked)
        for _, _, uid in claims:
            self.checkpoint[uid]["pods"].add(pod)
        return {uid: self.checkpoint[uid]["devices"] for _, _, uid in claims}

    def _call_prepare(self, instance: DriverInstance, claims: list[tuple[str, str, str]]) -> None:
        protos = instance.protos
        for namespace, name, uid in claims:
            entry = {"namespace": namespace, "name": name, "pods": set(), "devices": []}
            self.checkpoint.setdefault(uid, entry)
        request = protos.NodePrepareResourcesRequest(
            claims=[protos.Claim(namespace=ns, name=name, uid=uid) for ns, name, uid in claims]
        )
        try:
            answer = instance.stub.NodePrepareResources(request, timeout=CALL_DEADLINE)
        except grpc.RpcError as error:
            raise PrepareError(f"NodePrepareResources: {rpc_text(error)}") from error
        uids = {uid for _, _, uid in claims}
        for uid in answer.claims.keys() - uids:
            raise PrepareError(f"NodePrepareResources returned result for unknown claim UID {uid}")
        if uids - answer.claims.keys():
            missing = len(uids - answer.claims.keys())
            raise PrepareError(f"NodePrepareResources skipped {missing} ResourceClaims")
        for _, name, uid in claims:
            result = answer.claims[uid]
            if result.error:
                raise PrepareError(
                    f"NodePrepareResources failed for ResourceClaim {name}: {result.error}"
                )
            for device in result.devices:
                self.checkpoint[uid]["devices"].append(
                    {
                        "requests": list(device.request_names),
                        "pool": device.pool_name,
                        "device": device.device_name,
                        "cdi": list(device.cdi_device_ids),
                    }
                )
            self._prepared.add(uid)

    def unprepare(self, pod: str, uid: str) -> None:
        """The pod has ended: the last one of a claim releases it. Raises PrepareError for an error."""
        entry = self.checkpoint.get(uid)
        if entry is None:
            return
        entry["pods"].discard(pod)
        if entry["pods"]:
            return
        instance = self.instance()
        protos = instance.protos
        claim = protos.Claim(namespace=entry["namespace"], name=entry["name"], uid=uid)
        try:
            answer = instance.stub.NodeUnprepareResources(
                protos.NodeUnprepareResourcesRequest(claims=[claim]), timeout=CALL_DEADLINE
            )
        except grpc.RpcError as error:
            raise PrepareError(f"NodeUnprepareResources: {rpc_text(error)}") from error
        if error_text := answer.claims[uid].error:
            raise PrepareError(error_text)
        self.checkpoint.pop(uid, None)
        self._prepared.discard(uid)

    def probe(self) -> None:
        """A Prepare of nothing, as liveness probes make it."""
        instance = self.instance()
        instance.stub.NodePrepareResources(
            instance.protos.NodePrepareResourcesRequest(), timeout=PROBE_DEADLINE
        )

    def claims(self) -> dict[str, dict[str, Any]]:
        """What the pod-resources socket shows: the claims that are believed prepared, by uid."""
        return {uid: entry for uid, entry in list(self.checkpoint.items()) if entry["pods"]}
