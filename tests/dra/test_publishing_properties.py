"""Whatever happens to host, API server, slices and daemon: the stored slices end as the wanted ones.

The API server is played by a dictionary with its rules: versions, conflicts, names that it makes, times
that it adds to taints, fields that it drops. The publisher is the real one.
"""

import copy
import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

import attrs
import trio
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.board import Board
from biren_plugin.cluster.api_server import ApiServer
from biren_plugin.cluster.object_watch import Objects
from biren_plugin.core.dra.pool import Pool
from biren_plugin.core.dra.slice_writes import Owner
from biren_plugin.dra.slice_publisher import PATH, SlicePublisher
from biren_plugin.errors import ApiConflict, ApiError, ApiNotFound, ApiUnreachable

Object = dict[str, Any]
OWNER = Owner("node-7", "uid-7")


@attrs.define
class Api:
    """Stored slices by name, and what goes wrong next."""

    slices: dict[str, Object] = attrs.Factory(dict)
    writes: list[tuple[str, str]] = attrs.Factory(list)
    drop: frozenset[str] = frozenset()
    failing: int = 10**9
    """So many calls go well before one fails; a lost answer: the write was made."""
    lost: bool = False
    interfere: int | None = None
    """Before so many more writes, somebody else changes every slice."""
    numbers: Any = attrs.Factory(lambda: itertools.count(1))

    async def call(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        query: Mapping[str, str] | None = None,
    ) -> Object:
        await trio.lowlevel.checkpoint()
        self.failing -= 1
        if self.failing == 0 and not self.lost:
            raise ApiUnreachable("down")
        answer = self._do(method, path.removeprefix(PATH).strip("/"), copy.deepcopy(body))
        if self.failing == 0:
            raise ApiUnreachable("the answer was lost")
        return copy.deepcopy(answer)

    def _do(self, method: str, name: str, body: Object | None) -> Object:
        if method == "GET":
            return {"items": [self.slices[each] for each in sorted(self.slices)]}
        assert body is not None
        if self.interfere is not None:
            self.interfere -= 1
            if self.interfere < 0:
                self.interfere = None
                for each in self.slices.values():
                    each["metadata"]["resourceVersion"] = str(next(self.numbers))
        self.writes.append((method, name))
        if method == "POST":
            name = f"{body['metadata']['generateName']}{next(self.numbers):05d}"
            return self._store(name, body)
        if name not in self.slices:
            raise ApiNotFound(name)
        version = self.slices[name]["metadata"]["resourceVersion"]
        if method == "PUT":
            if body["metadata"]["resourceVersion"] != version:
                raise ApiConflict(name)
            return self._store(name, body)
        if body["preconditions"]["resourceVersion"] != version:
            raise ApiConflict(name)
        return self.slices.pop(name)

    def _store(self, name: str, sent: Object) -> Object:
        version = str(next(self.numbers))
        sent["metadata"] = {"name": name, "uid": name, "resourceVersion": version}
        for device in sent["spec"]["devices"]:
            for field in self.drop:
                device.pop(field, None)
            for taint in device.get("taints") or ():
                taint.setdefault("timeAdded", f"time {version}")
        self.slices[name] = sent
        return sent

    def devices(self) -> list[list[Object]] | None:
        """The devices as the scheduler sees them, without times; None for a pool that is not whole."""
        specs = [self.slices[name]["spec"] for name in sorted(self.slices)]
        highest = max((each["pool"]["generation"] for each in specs), default=0)
        newest = [each for each in specs if each["pool"]["generation"] == highest]
        if {each["pool"]["resourceSliceCount"] for each in newest} != {len(newest)}:
            return None
        found = copy.deepcopy([each["devices"] for each in newest])
        for device in itertools.chain.from_iterable(found):
            for taint in device.get("taints") or ():
                taint.pop("timeAdded")
        return found


def pool_of(slices: list[list[str]], faulty: set[str]) -> Pool:
    taint = {"key": "gpu.birentech.com/ecc", "effect": "NoSchedule"}
    return Pool(
        slices=tuple(
            tuple(
                {"name": name, **({"taints": [dict(taint)]} if name in faulty else {})}
                for name in names
            )
            for names in slices
        )
    )


names = st.lists(st.sampled_from("abcdef"), max_size=3, unique=True)
pools = st.builds(pool_of, st.lists(names, min_size=1, max_size=3), st.sets(st.sampled_from("abc")))
events = st.lists(
    st.one_of(
        st.tuples(st.just("host"), pools),
        st.tuples(st.just("delete"), st.sets(st.integers(0, 3), min_size=1)),
        st.tuples(st.just("fail"), st.integers(1, 6)),
        st.tuples(st.just("lose"), st.integers(2, 6)),
        st.tuples(st.just("interfere"), st.integers(0, 3)),
        st.tuples(st.just("drop"), st.sampled_from([frozenset(), frozenset({"taints"})])),
        st.tuples(st.just("restart"), st.none()),
    ),
    max_size=8,
)


async def publish(publisher: SlicePublisher, pool: Pool) -> None:
    """One round of the publisher, as a change of the pool or of a slice causes it."""
    pools_board, stored = Board[Pool](), Board[Objects]()
    pools_board.post(pool)
    posts: list[object] = []
    with publisher.published.subscribe() as published:
        while True:  # not the post of an earlier round
            try:
                published.receive_nowait()
            except trio.WouldBlock:
                break
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publisher.run, pools_board, stored)
            posts.append(await published.receive())
            nursery.cancel_scope.cancel()


async def live(history: list[tuple[str, Any]], wanted: Pool) -> Api:
    api = Api()
    publisher = SlicePublisher(cast("ApiServer", api), OWNER)
    pool = wanted
    for what, how in history:
        api.failing, api.interfere = 10**9, None
        match what:
            case "host":
                pool = how
            case "delete":
                for each in [name for at, name in enumerate(sorted(api.slices)) if at in how]:
                    del api.slices[each]
            case "fail" | "lose":
                api.failing, api.lost = how, what == "lose"
            case "interfere":
                api.interfere = how
            case "drop":
                api.drop = how
                publisher.note_failure(ApiUnreachable("upgraded"))
            case "restart":
                publisher = SlicePublisher(cast("ApiServer", api), OWNER)
        try:
            await publish(publisher, pool)
        except* ApiError:
            pass  # its supervisor starts it again, by another event here
    api.failing, api.interfere = 10**9, None
    api.writes.clear()
    before = set(api.slices)
    await publish(publisher, wanted)
    counted = Counter(name for method, name in api.writes if method != "POST")
    assert all(count == 1 for count in counted.values()), "no slice is written twice"
    assert set(counted) <= before
    created = sum(method == "POST" for method, _ in api.writes)
    assert created <= len(wanted.slices)
    settled = list(api.writes)
    await publish(publisher, wanted)
    assert api.writes == settled or bool(api.drop), "a second round has nothing to write"
    settled = list(api.writes)
    await publish(publisher, wanted)
    assert api.writes == settled, "a field that is dropped is tried once"
    return api


@given(events, pools)
def test_after_any_history_the_stored_slices_are_the_wanted_ones_with_no_write_too_many(
    history: list[tuple[str, Any]], wanted: Pool
) -> None:
    api = trio.run(live, history, wanted)
    expected = [[dict(device) for device in each] for each in wanted.slices]
    for device in itertools.chain.from_iterable(expected):
        for field in api.drop:
            device.pop(field, None)
    found = api.devices()
    assert found is not None
    for device in itertools.chain.from_iterable(found):
        for field in api.drop:
            device.pop(field, None)
    assert found == expected
