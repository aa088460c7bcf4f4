"""Keeps a selection of objects in step with the API server: list, then watch, forever.

1. The board holds all objects by name; each change posts them all again.
2. A watch ends normally after some minutes and continues from its last version. If that version is too
   old (410), it starts again with a list.
3. A server that stays silent beyond the requested end of the watch counts as gone.
"""

import math
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import trio

from biren_plugin.board import Board
from biren_plugin.cluster.api_server import (
    NAMED,
    ApiServer,
    Query,
    error_of,
    from_json,
    items_of,
)
from biren_plugin.core.parse.api_shapes import Object, Shape, shaped
from biren_plugin.errors import ApiError, ApiExpired, ApiForbidden, ApiUnreachable
from biren_plugin.notice import say
from biren_plugin.supervise import Pace, keep_running

PACE: Final = Pace(first_wait=0.8, longest_wait=30.0)
"""As in client-go's reflector."""
FORBIDDEN_WAIT: Final = 60.0
"""Seconds: only an administrator can grant a missing right."""
_ROLES_READ: Final = 5.0
"""Seconds after its start in which an API server may refuse what it allows once it has read its roles."""
_SEPARATE: Final = 120.0
"""Seconds between refusals of which the later one does not continue the earlier one."""
_SHORTEST_WATCH: Final = 300
_LONGEST_WATCH: Final = 600
_SILENCE: Final = 30.0
"""Seconds beyond the requested end."""
_TOO_SHORT: Final = 1.0
"""Seconds: a server that ends each watch at once would otherwise be asked without a pause."""

_VERSIONED: Final[Shape] = {"metadata": {"resourceVersion": str}}
_EVENT: Final[Shape] = {"type": str, "object": {}}

Objects = Mapping[str, Object]
"""By name."""


class Refusals:
    """Slows a client down that is refused for longer than by an API server that has just started."""

    def __init__(self) -> None:
        self._first = self._last = -math.inf

    async def wait(self) -> None:
        """Wait `FORBIDDEN_WAIT` after a refusal, unless it is one of the first."""
        now = trio.current_time()
        if now - self._last > _SEPARATE:
            self._first = now
        self._last = now
        if now - self._first >= _ROLES_READ:
            await trio.sleep(FORBIDDEN_WAIT)


async def watch_objects(
    api: ApiServer,
    path: str,
    query: Query,
    objects: Board[Objects],
    on_failure: Callable[[Exception], None] = lambda _cause: None,
    shape: Shape = NAMED,
) -> None:
    """Post the objects at `path` that `query` selects, which have `shape`. Ends only by bugs, or cancelled."""
    name = f"watch of {path.rsplit('/', 1)[-1]}"
    listed = objects.latest
    failed = False

    def note_failure(cause: Exception) -> None:
        nonlocal failed
        failed = True
        on_failure(cause)

    def note_list() -> None:
        nonlocal failed
        if failed:
            failed = False
            say("runs_again", f"{name} runs again", subtree=name)

    def has_listed() -> bool:
        """Return whether there was a list since the last failure: then the next one is logged again."""
        nonlocal listed
        before, listed = listed, objects.latest
        return listed is not before

    await keep_running(
        partial(_list_and_watch, api, path, query, objects, shape, Refusals(), note_list),
        name,
        expected=(ApiError,),
        at_once=(ApiExpired,),
        is_working=has_listed,
        on_failure=note_failure,
        pace=PACE,
    )


async def _list_and_watch(
    api: ApiServer,
    path: str,
    query: Query,
    objects: Board[Objects],
    shape: Shape,
    refusals: Refusals,
    on_list: Callable[[], None],
) -> None:
    try:
        listed = await api.call("GET", path, query=query)
        known = {each["metadata"]["name"]: each for each in items_of(listed, shape)}
        version = shaped(listed, _VERSIONED, "a list with a version")["metadata"]["resourceVersion"]
        objects.post(dict(known))
        on_list()
        while True:
            version = await _watch(api, path, query, version, known, objects, shape)
    except ApiUnreachable as error:
        if error.retry_after is not None:
            await trio.sleep(min(error.retry_after, PACE.longest_wait))
        raise
    except ApiForbidden:
        await refusals.wait()
        raise


async def _watch(
    api: ApiServer,
    path: str,
    query: Query,
    version: str,
    known: dict[str, Object],
    objects: Board[Objects],
    shape: Shape,
) -> str:
    """Watch from `version` to the normal end; return the version to continue from."""
    seconds = random.randint(_SHORTEST_WATCH, _LONGEST_WATCH)  # noqa: S311 - spreads load, no secret
    asked = {
        **query, "watch": "1", "allowWatchBookmarks": "true",
        "resourceVersion": version, "timeoutSeconds": str(seconds),
    }  # fmt: skip
    rest = bytearray()
    began = trio.current_time()
    async with api.stream(path, asked) as connection:
        with trio.move_on_after(seconds + _SILENCE) as silent:
            while (line := await connection.line(rest)) is not None:
                version = _take(line, path, known, objects, shape)
        if silent.cancelled_caught:
            raise ApiUnreachable(f"WATCH {path}: the API server stopped answering")
    if trio.current_time() - began < _TOO_SHORT:
        raise ApiUnreachable(f"the API server ended a watch of {path} at once")
    return version


def _take(
    line: bytes, path: str, known: dict[str, Object], objects: Board[Objects], shape: Shape
) -> str:
    """Apply one event; return its version."""
    try:
        event = shaped(from_json(line), _EVENT, "an event")
    except ValueError as error:
        raise ApiUnreachable(f"WATCH {path}: an event is not JSON: {error}") from error
    kind, found = event["type"], event["object"]
    if kind == "ERROR":
        code = found.get("code")
        raise error_of(code if isinstance(code, int) else 500, f"WATCH {path}", found)
    version: str = shaped(found, _VERSIONED, "an event")["metadata"]["resourceVersion"]
    if kind != "BOOKMARK":
        name = shaped(found, shape, "an event")["metadata"]["name"]
        if kind == "DELETED":
            known.pop(name, None)
        else:
            known[name] = found
        objects.post(dict(known))
    return version
