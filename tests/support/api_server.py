"""A stand-in API server: the rules of resource.k8s.io/v1 that a driver meets, over real TLS and HTTP/1.1.

Written with the standard library's threads, so that it shares no code with the client that it
tests. What it does is in dra-contract's words: optimistic concurrency, watches with bookmarks, 410,
dropped fields, conflicts, slow and broken answers.
"""

import contextlib
import copy
import json
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import attrs
import trustme

from tests.support.api_rules import KINDS, SELECTORS, faults, kind_of, unknown_fields

Object = dict[str, Any]
SLICES = "/apis/resource.k8s.io/v1/resourceslices"
_PATIENCE = 10.0
"""Seconds."""


@attrs.define
class StandInApiServer:
    """What is stored, and how the server misbehaves. Use as a context manager."""

    token: str = "secret-1"
    """The token that it takes."""
    stranger: str = "secret-of-a-stranger"
    """A token whose account has no right."""
    objects: dict[str, Object] = attrs.Factory(dict)
    """By path."""
    requests: list[tuple[str, str]] = attrs.Factory(list)
    """Method and path of each request that was let in."""
    drop: tuple[str, ...] = ()
    """Fields of devices that it drops silently."""
    refuse: Callable[[str, str], tuple[int, str] | None] = lambda _method, _path: None
    """A status and a message for requests that it refuses."""
    plain: Callable[[str, str], tuple[int, bytes] | None] = lambda _method, _path: None
    """A status and a body of any shape, for requests that another server than an API server answers."""
    allowed: Callable[[str, str], bool] = lambda _verb, _resource: True
    """What a SelfSubjectAccessReview answers, by verb and resource."""
    hang: threading.Event | None = None
    """While this event exists and is not set, no request is answered."""
    spent: float = 0.0
    """Seconds in which it worked on requests that are not watches, from their first line on."""
    version: int = 100
    oldest: int = 0
    """Watches from before this version get 410."""
    history: list[tuple[int, str, Object]] = attrs.Factory(list)
    """Version, kind and object of each change."""
    changed: threading.Condition = attrs.Factory(threading.Condition)
    bookmark_after: float = 60.0
    closing: bool = False
    authority: Any = attrs.Factory(trustme.CA)
    server: ThreadingHTTPServer | None = None

    @property
    def port(self) -> int:
        assert self.server is not None
        return int(self.server.server_address[1])

    def __enter__(self) -> Self:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self) -> tuple[Any, Any]:
                sock, address = super().get_request()
                sock.settimeout(30)
                return context.wrap_socket(
                    sock, server_side=True, do_handshake_on_connect=False
                ), address

            def handle_error(self, _request: Any, _address: Any) -> None:
                pass  # the test checks a client that left in the middle

        self.server = Server(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.server is not None
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()

    def account(self, directory: Path) -> dict[str, str]:
        """Writes a service account's files; gives the environment of a pod that has it."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "ca.crt").write_bytes(self.authority.cert_pem.bytes())
        (directory / "token").write_text(self.token)
        return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port)}

    def kubeconfig(self, folder: Path) -> Path:
        """A kubeconfig in `folder` that leads here."""
        (folder / "ca.pem").write_bytes(self.authority.cert_pem.bytes())
        cluster = {
            "server": f"https://127.0.0.1:{self.port}", "certificate-authority": "ca.pem",
        }  # fmt: skip
        config = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": self.token}}],
        }
        path = folder / "kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def annotate(self, path: str, values: Mapping[str, str | None], **more: Any) -> Object:
        """Annotate an object as another client would, and merge `more` into it."""
        with self.changed:
            patch = {"metadata": {"annotations": dict(values)}, **more}
            return self.put(path, _merged(self.objects[path], patch))

    def wait_until(self, holds: Callable[[], object]) -> None:
        """Wait for a condition on what is stored: the server itself notifies of each change."""
        with self.changed:
            assert self.changed.wait_for(holds, _PATIENCE)

    def put(self, path: str, found: Object) -> Object:
        """Store an object as another client would; return the stored one."""
        with self.changed:
            known = path in self.objects
            self.version += 1
            stored = copy.deepcopy(found)
            if (kind := kind_of(path)) is not None:
                stored |= {"kind": kind[0], "apiVersion": kind[1]}
            metadata = stored.setdefault("metadata", {})
            metadata.setdefault("uid", str(uuid.uuid4()))
            metadata.setdefault("name", path.rpartition("/")[2])
            metadata["resourceVersion"] = str(self.version)
            if stored.get("spec", {}).get("devices") == []:
                del stored["spec"]["devices"]
            for device in stored.get("spec", {}).get("devices") or ():
                for field in self.drop:
                    device.pop(field, None)
                for taint in device.get("taints") or ():
                    taint.setdefault(
                        "timeAdded", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                    )
            self.objects[path] = stored
            self._tell("MODIFIED" if known else "ADDED", stored)
            return stored

    def delete(self, path: str) -> Object:
        """Delete an object as another client would; return it with its last version."""
        with self.changed:
            self.version += 1
            gone = copy.deepcopy(self.objects.pop(path))
            gone["metadata"]["resourceVersion"] = str(self.version)
            self._tell("DELETED", gone)
            return gone

    def _tell(self, kind: str, found: Object) -> None:
        self.history.append((self.version, kind, copy.deepcopy(found)))
        self.changed.notify_all()

    def slices(self) -> list[Object]:
        """The stored slices by name."""
        with self.changed:
            return [
                copy.deepcopy(self.objects[path])
                for path in sorted(self.objects)
                if path.startswith(SLICES + "/")
            ]

    def writes(self) -> list[tuple[str, str]]:
        return [each for each in self.requests if each[0] in ("POST", "PUT", "DELETE", "PATCH")]


def _is_collection(path: str) -> bool:
    return path.rpartition("/")[2] in KINDS


def _differs(wanted: Object, stored: Object) -> bool:
    return any(stored["metadata"][key] != value for key, value in wanted.items())


def _refusal(
    query: dict[str, str], found: Object, before: Object | None = None
) -> tuple[int, Object] | None:
    if query.get("fieldValidation") == "Strict" and (unknown := unknown_fields(found)):
        return 400, _status(400, f"strict decoding error: unknown field {sorted(unknown)}")
    if wrong := faults(found, before):
        causes = [{"field": each} for each in wrong]
        return 422, _status(422, f"invalid: {wrong}") | {"details": {"causes": causes}}
    return None


def _without_unknown(found: Object) -> Object:
    unknown = unknown_fields(found)
    spec = {key: value for key, value in found.get("spec", {}).items() if key not in unknown}
    if unknown and spec.get("devices"):
        spec["devices"] = [
            {key: value for key, value in each.items() if key not in unknown}
            for each in spec["devices"]
        ]
    return {**found, **({"spec": spec} if "spec" in found else {})}


def _is_in(path: str, collection: str) -> bool:
    """Whether an object is in a collection; `/api/v1/pods` has those of all namespaces."""
    if collection == "/api/v1/pods":
        return path.startswith("/api/v1/namespaces/") and path.split("/")[-2] == "pods"
    return path.startswith(collection + "/")


def _matches(found: Object, selector: str) -> bool:
    for term in filter(None, selector.split(",")):
        key, _, value = term.partition("=")
        here: Any = found
        for part in key.split("."):
            here = here.get(part, "") if isinstance(here, dict) else ""
        if here != value:
            return False
    return True


def _handler(api: StandInApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # a head and its body are two writes: 40 ms between them

        def log_message(self, *_: object) -> None:
            pass

        def parse_request(self) -> bool:
            self._began = time.perf_counter()
            return super().parse_request()

        def do_GET(self) -> None:
            self._serve("GET")

        def do_POST(self) -> None:
            self._serve("POST")

        def do_PUT(self) -> None:
            self._serve("PUT")

        def do_PATCH(self) -> None:
            self._serve("PATCH")

        def do_DELETE(self) -> None:
            self._serve("DELETE")

        def _serve(self, method: str) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            split = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(split.query).items()}
            if api.hang is not None:
                api.hang.wait(30)
            self._stranger = self.headers.get("authorization") == f"Bearer {api.stranger}"
            if self._stranger and not split.path.endswith("reviews"):
                return self._answer(403, _status(403, f"{split.path} is forbidden"))
            if not self._stranger and self.headers.get("authorization") != f"Bearer {api.token}":
                return self._answer(401, _status(401, "Unauthorized"))
            api.requests.append((method, split.path))
            if (refused := api.refuse(method, split.path)) is not None:
                return self._answer(refused[0], _status(*refused))
            if (plain := api.plain(method, self.path)) is not None:
                return self._answer(*plain)
            if query.get("watch"):
                return self._watch(split.path, query)
            status, answer = self._do(method, split.path, query, body)
            self._answer(status, answer)
            api.spent += time.perf_counter() - self._began
            return None

        def _do(
            self, method: str, path: str, query: dict[str, str], body: Any
        ) -> tuple[int, Object]:
            with api.changed:
                if path == "/version":
                    return 200, {"gitVersion": "v1.36.2"}
                if path == "/apis/resource.k8s.io/v1":
                    return 200, {"kind": "APIResourceList", "apiVersion": "v1"}
                if path.endswith("/selfsubjectaccessreviews"):
                    asked = body["spec"]["resourceAttributes"]
                    allowed = api.allowed(asked["verb"], asked["resource"]) and not self._stranger
                    answer = {"metadata": {}, "status": {"allowed": allowed}}
                    return 201, {key: body[key] for key in ("kind", "apiVersion")} | answer
                if kind_of(path) is None:
                    return 404, _status(404, "the server could not find the requested resource")
                if method == "POST":
                    return self._create(path, query, body)
                if method == "GET" and _is_collection(path):
                    return self._list(path, query)
                if path not in api.objects:
                    return 404, _status(404, f"{path} not found")
                stored = api.objects[path]
                if method == "GET":
                    return 200, stored
                if method in ("PUT", "PATCH"):
                    return self._change(path, query, body, stored, whole=method == "PUT")
                if _differs((body or {}).get("preconditions", {}), stored):
                    return 409, _status(409, "precondition failed")
                return 200, api.delete(path)

        def _list(self, path: str, query: dict[str, str]) -> tuple[int, Object]:
            selector = query.get("fieldSelector", "")
            kind, version = kind_of(path) or ("", "")
            if not {
                term.partition("=")[0] for term in selector.split(",") if term
            } <= SELECTORS.get(path.rpartition("/")[2], set()):
                return 400, _status(400, f"field label not supported: {selector}")
            items = [
                {key: value for key, value in found.items() if key not in ("kind", "apiVersion")}
                for each, found in sorted(api.objects.items())
                if _is_in(each, path) and _matches(found, selector)
            ]
            metadata = {"resourceVersion": str(api.version)}
            return 200, {
                "kind": f"{kind}List", "apiVersion": version, "metadata": metadata, "items": items,
            }  # fmt: skip

        def _create(self, path: str, query: dict[str, str], body: Any) -> tuple[int, Object]:
            if body.get("kind", "") != (kind_of(path) or ("",))[0]:
                return 400, _status(400, f"{body.get('kind')} in place of {path}")
            metadata = body["metadata"]
            if "name" not in metadata:
                metadata["name"] = metadata["generateName"][:58] + uuid.uuid4().hex[:5]
            if (refused := _refusal(query, body)) is not None:
                return refused
            if f"{path}/{metadata['name']}" in api.objects:
                return 409, _status(409, "already exists", "AlreadyExists")
            return 201, api.put(f"{path}/{metadata['name']}", _without_unknown(body))

        def _change(
            self, path: str, query: dict[str, str], body: Any, stored: Object, *, whole: bool
        ) -> tuple[int, Object]:
            wanted = body.get("metadata", {})
            if whole and wanted.get("name") != stored["metadata"]["name"]:
                return 400, _status(
                    400, "the name of the object does not match the name on the URL"
                )
            # Another uid is a conflict in a whole object, and an invalid field in a patch.
            checked = ("uid", "resourceVersion") if whole else ("resourceVersion",)
            if _differs({key: wanted[key] for key in checked if key in wanted}, stored):
                return 409, _status(409, "the object has been modified")
            changed = body if whole else _merged(stored, body)
            if (refused := _refusal(query, changed, stored)) is not None:
                return refused
            changed = _without_unknown(changed)
            changed["metadata"] = {**changed["metadata"], "uid": stored["metadata"]["uid"]}
            if _without_version(changed) == _without_version(stored):
                return 200, stored
            return 200, api.put(path, changed)

        def _answer(self, status: int, answer: Object | bytes) -> None:
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _watch(self, path: str, query: dict[str, str]) -> None:
            seen = int(query["resourceVersion"])
            begun = api.version
            until = time.monotonic() + float(query.get("timeoutSeconds", "300"))
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            if seen < api.oldest:
                self._line({"type": "ERROR", "object": _status(410, "too old resource version")})
                return self._end()
            watched = (kind_of(path) or ("",))[0]
            while True:
                with api.changed:
                    fresh = [each for each in api.history if each[0] > seen]
                    if not fresh and not api.closing:
                        left = until - time.monotonic()
                        api.changed.wait(max(min(left, api.bookmark_after), 0))
                        fresh = [each for each in api.history if each[0] > seen]
                    now = api.version
                if api.closing or time.monotonic() >= until:
                    return self._end()
                for version, kind, found in fresh:
                    seen = version
                    if found.get("kind") == watched and _matches(
                        found, query.get("fieldSelector", "")
                    ):
                        self._line({"type": kind, "object": found})
                if not fresh and now > begun and query.get("allowWatchBookmarks") == "true":
                    mark = {"metadata": {"resourceVersion": str(now)}, "spec": {}}
                    self._line({"type": "BOOKMARK", "object": mark})

        def _line(self, event: Object) -> None:
            content = json.dumps(event).encode() + b"\n"
            self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
            self.wfile.flush()

        def _end(self) -> None:
            with contextlib.suppress(OSError):
                self.wfile.write(b"0\r\n\r\n")

    return Handler


_REASONS = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict",
    410: "Expired", 422: "Invalid",
}  # fmt: skip


def _status(code: int, message: str, reason: str = "") -> Object:
    reason = reason or _REASONS.get(code, "InternalError")
    return {"kind": "Status", "code": code, "reason": reason, "message": message}


def _without_version(found: Object) -> Object:
    plain = copy.deepcopy(found)
    plain["metadata"] = {
        key: value
        for key, value in plain["metadata"].items()
        if key not in ("uid", "resourceVersion")
    }
    return plain


def _merged(stored: Object, patch: Object) -> Object:
    """RFC 7386."""
    result = copy.deepcopy(stored)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = _merged(result.get(key) or {}, value)
        else:
            result[key] = value
    return result


@contextlib.contextmanager
def stand_in_api_server(**how: Any) -> Iterator[StandInApiServer]:
    with StandInApiServer(**how) as api:
        yield api
