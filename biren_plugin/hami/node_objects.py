"""The node and its pods in the API server, as far as HAMi and a device plugin write to each other there.

1. Each call has a deadline of `DEADLINE`.
2. A pod is written only as the one that was read (its uid), the lock only as it was read (the node's
   version): what was replaced meanwhile is left alone.
"""

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import quote

import trio

from biren_plugin.cluster.api_server import ApiServer, items_of, path_of_node
from biren_plugin.cluster.credentials import who_am_i
from biren_plugin.core.hami.annotations import (
    DAEMONSET_SHAPE,
    LOCK,
    NODE_SHAPE,
    POD_SHAPE,
    Lock,
    annotating,
    annotation,
    daemonset_of,
    is_leaving,
    read_lock,
)
from biren_plugin.core.hami.promises import Promise
from biren_plugin.core.parse.api_shapes import Object, shaped
from biren_plugin.errors import ApiConflict, ApiInvalid, ApiNotFound, ApiUnreachable

DEADLINE: Final = 3.0
"""Seconds for one call."""
_TRIES: Final = 5
_FIRST_WAIT: Final = 0.1
"""Seconds after a conflict, doubled from try to try, as HAMi's own plugins wait."""


class NodeObjects:
    """The node called `name`, or without a name the one that the pod's token names."""

    def __init__(self, api: ApiServer, name: str) -> None:
        self._api = api
        self._name = name

    async def name(self) -> str:
        """The node's name. Raises `ApiUnreachable`."""
        if not self._name:
            token = (await self._api.access()).token
            try:
                self._name = who_am_i(token or "").node
            except ApiUnreachable as error:
                raise ApiUnreachable(f"{error}, or give --node-name") from error
        return self._name

    async def node(self) -> Object:
        """The node. Raises `ApiError`."""
        found = await self._api.call("GET", await self._path(), deadline=DEADLINE)
        return shaped(found, NODE_SHAPE, "a node")

    async def annotate(self, values: Mapping[str, str | None], **metadata: str) -> Object:
        """Sets annotations of the node, or removes those that are None. Raises `ApiError`."""
        patch = annotating(values, **metadata)
        found = await self._api.call("PATCH", await self._path(), patch, deadline=DEADLINE)
        return shaped(found, NODE_SHAPE, "a node")

    async def pod(self, namespace: str, name: str) -> Object | None:
        """A pod; None if there is none. Raises `ApiError`."""
        try:
            found = await self._api.call("GET", _pod_path(namespace, name), deadline=DEADLINE)
            return shaped(found, POD_SHAPE, "a pod")
        except ApiNotFound:
            return None

    async def pending_pods(self) -> list[Object]:
        """The pods of the node that have not started. Raises `ApiError`."""
        query = {"fieldSelector": f"spec.nodeName={await self.name()},status.phase=Pending"}
        listed = await self._api.call("GET", "/api/v1/pods", query=query, deadline=DEADLINE)
        return items_of(listed, POD_SHAPE)

    async def annotate_pod(self, promise: Promise, values: Mapping[str, str | None]) -> None:
        """Sets annotations of the promise's pod; one that is gone needs none. Raises `ApiError`."""
        path = _pod_path(promise.namespace, promise.pod)
        patch = annotating(values, uid=promise.uid)
        try:
            await self._api.call("PATCH", path, patch, deadline=DEADLINE)
        except ApiNotFound:
            return
        except ApiInvalid as error:
            # In a patch another pod's uid is no conflict but an invalid field.
            if "metadata.uid" not in str(error):
                raise

    async def release(self, is_meant: Callable[[Lock], bool]) -> Lock | None:
        """Removes the lock if it `is_meant`; gives the one that was removed. Raises `ApiError`."""
        for again in range(_TRIES):
            node = await self.node()
            lock = read_lock(annotation(node, LOCK))
            if lock is None or not is_meant(lock):
                return None
            try:
                version = node["metadata"]["resourceVersion"]
                await self.annotate({LOCK: None}, resourceVersion=version)
                return lock
            except ApiConflict:
                await trio.sleep(_FIRST_WAIT * 2**again)
        raise ApiUnreachable("another client keeps changing this node: HAMi's lock is still there")

    async def is_left_for_good(self) -> bool:
        """Whether no pod follows this one on the node. Raises `ApiError`, outside of a pod too."""
        me = who_am_i((await self._api.access()).token or "")
        pod = await self.pod(me.namespace, me.pod)
        name = daemonset_of(pod) if pod is not None else None
        if name is None:
            return False
        path = f"/apis/apps/v1/namespaces/{quote(me.namespace, safe='')}/daemonsets/{quote(name, safe='')}"
        try:
            found = await self._api.call("GET", path, deadline=DEADLINE)
            daemonset: Object | None = shaped(found, DAEMONSET_SHAPE, "a DaemonSet")
        except ApiNotFound:
            daemonset = None
        return is_leaving(daemonset, await self.node())

    async def _path(self) -> str:
        return path_of_node(await self.name())


def _pod_path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"
