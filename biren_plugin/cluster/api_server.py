"""Calls to the API server: one kept connection, a deadline for each call, and an error class for each fault.

1. A token is read again after `FRESH` seconds and after a 401; that call is then repeated once.
2. A kept connection that the server has closed is replaced without an error. A POST is not repeated: the
   server may have carried it out.
3. An answer of 400 and above raises; `errors` has a class for each fault. The API's own text is included.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

import trio

from biren_plugin.board import Board
from biren_plugin.cluster.credentials import FRESH, Access, Load
from biren_plugin.cluster.http_connection import BROKEN, Head, HttpConnection, connect
from biren_plugin.core.parse.api_shapes import Object, Shape, shaped
from biren_plugin.errors import (
    ApiConflict,
    ApiError,
    ApiExpired,
    ApiForbidden,
    ApiInvalid,
    ApiNotFound,
    ApiUnreachable,
    NoThread,
    too_slow,
)
from biren_plugin.worker_thread import WorkerThread

READ_DEADLINE: Final = 2.0
"""Seconds for reading the credentials: less than for any call, which would blame the API server."""

CALL_DEADLINE: Final = 10.0
"""Seconds for one call, from the wait for the kept connection to the last byte."""

_VERBS: Final = {
    "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "WATCH": "watch",
}  # fmt: skip

NAMED: Final[Shape] = {"metadata": {"name": str}}
"""The shape of every object."""
LONGEST_TEXT: Final = 300
"""Characters of the API's own text in an error: they reach logs, `status`, and events of pods."""
Query = Mapping[str, str]


def path_of_node(name: str) -> str:
    """Return the path of a Node object."""
    return f"/api/v1/nodes/{quote(name, safe='')}"


class ApiServer:
    """The API server that `load` gives access to; its kept connection is closed at the end of the block."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._thread = WorkerThread()
        self._access: tuple[float, Access] | None = None
        self._kept: HttpConnection | None = None
        self._turn = trio.Lock()
        self.forbidden = Board[tuple[str, ...]]()
        """What the server refused last: `create resourceslices`; empty if it refuses nothing."""

    async def call(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        query: Query | None = None,
        deadline: float = CALL_DEADLINE,
    ) -> Object:
        """Return the object in the server's answer. Raises the `ApiError` that fits."""
        target = _target(path, query)
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        with trio.move_on_after(deadline), self._noted(method, path):
            async with self._turn:
                return await self._call(method, target, data)
        raise ApiUnreachable(f"{method} {path}: no answer from the API server in {deadline:g} s")

    @contextmanager
    def _noted(self, method: str, path: str) -> Iterator[None]:
        """Notes whether the server refuses the request for want of a right."""
        right = right_for(method, path)
        try:
            yield
        except ApiForbidden:
            self._note(right, refused=True)
            raise
        except ApiUnreachable:
            raise  # shows nothing about rights
        except ApiError:
            self._note(right, refused=False)
            raise
        else:
            self._note(right, refused=False)

    def _note(self, right: str, *, refused: bool) -> None:
        before = self.forbidden.latest or ()
        now = {*before, right} if refused else {*before} - {right}
        if now != {*before}:
            self.forbidden.post(tuple(sorted(now)))

    async def _call(self, method: str, target: str, data: bytes | None) -> Object:
        head, body = await self._exchange(method, target, data)
        if head.status == 401:
            self._access = None
            head, body = await self._exchange(method, target, data)
        return _object(method, target, head, body)

    async def _exchange(self, method: str, target: str, data: bytes | None) -> tuple[Head, bytes]:
        """Make one request on the kept connection, or on a new one."""
        access = await self.access()
        kept = self._kept
        self._kept = None  # a half-finished exchange must never be continued
        if kept is not None and kept.access is access:
            try:
                return await self._on(kept, method, target, data)
            except BROKEN:
                if method == "POST":
                    raise ApiUnreachable("the API server closed the connection") from None
        elif kept is not None:
            await kept.close()
        try:
            return await self._on(await connect(access), method, target, data)
        except BROKEN as error:
            raise ApiUnreachable(f"the API server closed the connection: {error}") from error

    async def _on(
        self, connection: HttpConnection, method: str, target: str, data: bytes | None
    ) -> tuple[Head, bytes]:
        try:
            head = await connection.request(method, target, data)
            body = await connection.body()
            if connection.is_idle:
                self._kept = connection
            return head, body
        finally:
            if self._kept is not connection:
                await connection.close()

    async def access(self) -> Access:
        """Return the credentials, read at most `FRESH` ago. Raises `ApiUnreachable`."""
        now = trio.current_time()
        if self._access is None or now - self._access[0] >= FRESH:
            try:
                with trio.fail_after(READ_DEADLINE):
                    loaded = await self._thread.run(self._load)
            except trio.TooSlowError:
                reading = "reading the credentials for the API server"
                raise ApiUnreachable(too_slow(reading, READ_DEADLINE)) from None
            except NoThread as error:  # for the caller, one more way of not reaching the API server
                raise ApiUnreachable(str(error)) from error
            before = self._access[1] if self._access is not None else None
            # An equal one stays the same object, so that the kept connection can be used further.
            self._access = now, before if before == loaded and before is not None else loaded
        return self._access[1]

    @asynccontextmanager
    async def stream(self, path: str, query: Query) -> AsyncIterator[HttpConnection]:
        """Open a separate connection for the lines of a watch. Raises the `ApiError` that fits.

        The head has arrived when the block begins; the caller sets deadlines on the lines.
        """
        connection: HttpConnection | None = None
        target = _target(path, query)
        try:
            with trio.move_on_after(CALL_DEADLINE) as late, self._noted("WATCH", path):
                connection = await connect(await self.access())
                head = await connection.request("GET", target, None)
                if head.status == 401:
                    await connection.close()
                    self._access = None
                    connection = await connect(await self.access())
                    head = await connection.request("GET", target, None)
                if not _is_success(head):
                    _object("WATCH", target, head, await connection.body())
            if late.cancelled_caught or connection is None:
                raise ApiUnreachable(f"WATCH {path}: no answer in {CALL_DEADLINE:g} s")
            yield connection
        except BROKEN as error:
            raise ApiUnreachable(f"the API server ended a watch of {path}: {error}") from error
        finally:
            if connection is not None:
                await connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the kept connection."""
        if self._kept is not None:
            await self._kept.close()
            self._kept = None


def right_for(method: str, path: str) -> str:
    """Return the verb and the resource that a role must name: `create resourceslices`."""
    parts = path.strip("/").split("/")
    parts = parts[3:] if parts[0] == "apis" else parts[2:]
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        parts = parts[2:]
    verb = _VERBS.get(method) or ("get" if len(parts) > 1 else "list")
    return f"{verb} {parts[0] if parts else path}"


def _target(path: str, query: Query | None) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def items_of(listed: Object, shape: Shape = NAMED) -> list[Object]:
    """Return the objects of a list. Raises `ApiUnreachable` for an answer that is not a list of objects."""
    if listed.get("items", 0) is None:  # as Go writes an empty list
        return []
    items: list[Object] = shaped(listed, {"items": [shape]}, "a list of objects")["items"]
    return items


def from_json(content: bytes) -> Any:
    """Return what is in the JSON text, without nulls; a list's `items` stay. Raises `ValueError`."""
    try:
        return json.loads(content, object_pairs_hook=_without_nulls)
    except RecursionError as error:
        raise ValueError("too deep") from error


def _without_nulls(pairs: list[tuple[str, Any]]) -> Object:
    return {key: value for key, value in pairs if value is not None or key == "items"}


def _is_success(head: Head) -> bool:
    """A redirect is none: an API server sends no client elsewhere, but a proxy's login page does."""
    return 200 <= head.status < 300


def _object(method: str, target: str, head: Head, body: bytes) -> Object:
    """Return the answer's object, or raise its error."""
    if head.status == 204:
        return {}
    try:
        answer = from_json(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        answer = {"message": body[:LONGEST_TEXT].decode(errors="replace")}
        if _is_success(head):
            raise ApiUnreachable(f"the API server's answer is not JSON: {_one_line(answer)}")
    if _is_success(head):
        return answer
    raise error_of(head.status, f"{method} {target.partition('?')[0]}", answer, head.retry_after)


def error_of(
    status: int, request: str, answer: Object, retry_after: float | None = None
) -> ApiError:
    """Return the error for a `Status` object, with the server's own text."""
    text = f"{request}: {_one_line(answer) or f'status {status}'}"
    if status == 404:
        if "page not found" in text and "/apis/resource.k8s.io/" in request:
            text = f"{request}: the API server does not serve this API; DRA needs Kubernetes 1.34 or newer"
        return ApiNotFound(text)
    if status == 409:
        return ApiConflict(text)
    if status == 410:
        return ApiExpired(text)
    # An admission policy refuses with 422, reason Invalid; only the text shows it.
    if status in (401, 403) or "denied request" in str(answer.get("message")):
        return ApiForbidden(text)
    if 400 <= status < 500 and status not in (408, 429):
        return ApiInvalid(text)
    return ApiUnreachable(text, retry_after)


def _one_line(answer: Object) -> str:
    """Return the text of a `Status` object in one line of at most `LONGEST_TEXT` characters."""
    message = answer.get("message")
    if not isinstance(message, str):
        return ""
    text = " ".join(message[: 2 * LONGEST_TEXT].encode(errors="replace").decode().split())
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 3]}..."
