"""A stand-in for HAMi 2.10's scheduler, on the stand-in API server: the rows of `hami-contract`.

It has no clock and no thread: a test calls it to read nodes, choose, and bind. It remembers what
the real one remembers, and forgets it when it restarts.
"""

import itertools
from typing import Any

import attrs

from tests.support.api_server import StandInApiServer
from tests.support.hami_books import Books, Object, Wish, read, write

CARDS = "hami.io/node-biren-register"
HANDSHAKE = "hami.io/node-handshake-biren"
LOCK = "hami.io/mutex.lock"
NODE = "hami.io/vgpu-node"
ALLOCATED = "hami.io/Biren-devices-allocated"
TO_ALLOCATE = "hami.io/Biren-devices-to-allocate"
PHASE = "hami.io/bind-phase"
_NODES = "/api/v1/nodes"
_UIDS = itertools.count(1)


@attrs.define
class HamiScheduler:
    """Schedules pods of the namespace `default` to one node."""

    api: StandInApiServer
    node: str = "n1"
    books: Books | None = None
    """None: the node is not registered."""
    record: dict[str, list[list[str]]] = attrs.Factory(dict)
    """The cards of each pod, by container, as they were when the pod was first seen."""
    now: int = 1795829741

    def add_node(self) -> None:
        """The node joins the cluster, as a new object."""
        self.api.put(self._path(), {"metadata": {"name": self.node}, "spec": {}})

    def read(self, path: str) -> Object:
        """An object."""
        with self.api.changed:
            return self.api.objects[path]

    def annotate(self, path: str, values: dict[str, str | None]) -> None:
        """Changes annotations of an object."""
        self.api.annotate(path, values)

    def bind(self, name: str) -> None:
        """The kubelet of the node gets the pod."""
        self.api.annotate(self._path(name), {}, spec={"nodeName": self.node})

    def annotation(self, name: str, pod: str | None = None) -> str | None:
        """Of the node, or of a pod."""
        value = self.read(self._path(pod))["metadata"].get("annotations", {}).get(name)
        return None if value is None else str(value)

    @property
    def lock(self) -> str | None:
        return self.annotation(LOCK)

    def pods(self) -> dict[str, Object]:
        """By name."""
        start = self._path("")
        with self.api.changed:
            return {
                path.removeprefix(start): found
                for path, found in self.api.objects.items()
                if path.startswith(start)
            }

    def tick(self) -> None:
        """Read the node, as the scheduler does every 15 s."""
        shake = self.annotation(HANDSHAKE) or ""
        if "Requesting" in shake:
            if self.books is not None and shake == "Requesting_2000-01-01 00:00:00":
                self.books = None  # nothing is allocatable then
                self.annotate(self._path(), {HANDSHAKE: None})
            return
        self.annotate(self._path(), {HANDSHAKE: "Requesting_2026-11-28 01:35:41"})
        self.books = self.books or Books()
        self.books.take_list(self.annotation(CARDS) or "")
        if not self.books.cards:
            self.books = None

    def restart(self) -> None:
        """Forgets the node, and reads the pods' records from their annotations."""
        self.books = None
        self.record = {
            name: read(pod["metadata"]["annotations"].get(ALLOCATED, ""))
            for name, pod in self.pods().items()
            if self._holds(pod) and NODE in pod["metadata"]["annotations"]
        }

    def create(self, name: str, wish: Wish) -> None:
        """A user creates a pod."""
        self.api.put(
            self._path(name),
            {
                "metadata": {
                    "name": name, "namespace": "default", "uid": f"uid-{next(_UIDS)}", "annotations": {},
                },
                "spec": {"wish": [list(wish.init), list(wish.containers)]},
                "status": {"phase": "Pending"},
            },
        )  # fmt: skip

    def schedule(self, name: str) -> str:
        """Filter and bind; return `bound`, or why not."""
        return self.choose(name) or self.lock_and_bind(name) or "bound"

    def choose(self, name: str) -> str:
        """The extender's filter: chooses cards and writes them down; why not, or nothing."""
        if self.books is None:
            return "node unregistered"
        wish = self.wish_of(self.pods()[name])
        used = {
            card
            for other, entries in self.record.items()
            if other != name and other in self.pods() and self._holds(self.pods()[other])
            for entry in entries
            for card in entry
        }
        entries = self.books.fit(wish, used)
        if entries is None:
            return "no available node"
        self.now += 1
        self.record[name] = entries
        text = write(entries)
        chosen: dict[str, str | None] = {
            NODE: self.node, ALLOCATED: text, TO_ALLOCATE: text, "hami.io/vgpu-time": f"{self.now}",
        }  # fmt: skip
        self.annotate(self._path(name), chosen)
        return ""

    def lock_and_bind(self, name: str) -> str:
        """The extender's bind; why not, or nothing."""
        if sum(self.wish_of(self.pods()[name]).containers):
            held = (self.lock or "").split(",")
            if len(held) == 3 and held[2] in self.pods() and held[2] != name:
                return "node lock contention"
            self.annotate(self._path(), {LOCK: f"2026-11-28T01:35:41Z,default,{name}"})
        self.annotate(self._path(name), {PHASE: "allocating", "hami.io/bind-time": f"{self.now}"})
        self.bind(name)
        return ""

    def wish_of(self, pod: Object) -> Wish:
        """What a pod asks for."""
        init, containers = pod["spec"]["wish"]
        return Wish(tuple(containers), tuple(init))

    def run_pod(self, name: str, wish: Wish) -> str:
        """Creates and schedules one."""
        self.create(name, wish)
        return self.schedule(name)

    def set_status(self, name: str, **status: Any) -> None:
        """The kubelet reports on a pod."""
        self.api.annotate(self._path(name), {}, status=status)

    def delete(self, name: str) -> None:
        """A pod is gone."""
        self.api.delete(self._path(name))

    def _path(self, pod: str | None = None) -> str:
        return f"{_NODES}/{self.node}" if pod is None else f"/api/v1/namespaces/default/pods/{pod}"

    @staticmethod
    def _holds(pod: Object) -> bool:
        return pod["status"]["phase"] not in ("Succeeded", "Failed")
