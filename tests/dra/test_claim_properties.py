"""Whatever order claims come, go, fail, are given up and lose their files in: no two ever hold one card.

The kubelet is played by a dictionary of the claims that it believes prepared; two instances of the driver
share the files. Only admin access may hold what another claim holds.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.board import Board
from biren_plugin.cluster.api_server import ApiServer
from biren_plugin.core.cdi.spec import Spec
from biren_plugin.core.dra.claims import ClaimId
from biren_plugin.core.dra.pool import pool_of
from biren_plugin.core.model import DeviceList, HostFacts, Inventory
from biren_plugin.core.observed import ClaimFile, ClaimsSeen, ClaimUse, Holder, Observed
from biren_plugin.core.parse.claim_device import ClaimDevice
from biren_plugin.daemon_state import Counters
from biren_plugin.dra import claim_service
from biren_plugin.dra.claim_file_repair import ClaimFileRepair
from biren_plugin.dra.claim_service import ClaimService, Offer
from biren_plugin.errors import ApiNotFound
from biren_plugin.files.claim_files import ClaimFiles
from tests.core.dra.test_pool import whole
from tests.support.cards import GPU
from tests.support.examples import examples

POOL = pool_of(Inventory((DeviceList(GPU, tuple(whole(number) for number in range(3))),)), None)
CARDS = list(POOL.devices)


class Files(ClaimFiles):
    """The kubelet may give a Prepare up while its file is written."""

    give_up: trio.CancelScope | None = None

    def write(self, uid: str, spec: Spec) -> ClaimFile:
        written = super().write(uid, spec)
        if self.give_up is not None:
            trio.from_thread.run_sync(self.give_up.cancel, trio_token=self.token)
        return written

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.token = trio.lowlevel.current_trio_token()


class Api:
    """Claims by path."""

    def __init__(self) -> None:
        self.claims: dict[str, dict[str, Any]] = {}

    async def call(self, _method: str, path: str, **_: Any) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        if path not in self.claims:
            raise ApiNotFound(path)
        return self.claims[path]


class Node:
    """Two instances of the driver on one node, and what its kubelet believes."""

    def __init__(self, folder: Path) -> None:
        self.api = Api()
        self.files = Files(folder / "cdi")
        self.lock = folder / "lock"
        self.offers = Board[Offer]()
        self.believed: dict[str, tuple[ClaimId, tuple[ClaimDevice, ...]]] = {}
        self.plugin_pods: dict[tuple[str, str], Holder] = {}
        self.lost: dict[str, str] = {}
        self.uids = 0
        self.ids: dict[str, ClaimId] = {}
        self.instances = [self.instance(), self.instance()]
        self.offer()

    def instance(self) -> ClaimService:
        api = cast("ApiServer", self.api)
        return ClaimService(api, "node-7", self.offers, self.files, self.lock, Counters())

    def offer(self) -> None:
        self.offers.post(Offer(POOL, HostFacts(), holders=dict(self.plugin_pods), lost=self.lost))

    def allocate(self, name: str, cards: list[int], *, admin: bool) -> None:
        """The scheduler gives the claim cards, which a force-deleted pod may still hold."""
        self.uids += 1
        asked = ClaimId("team", name, f"uid-{self.uids}")
        self.ids[name] = asked
        results = [
            {"request": "r", "driver": "gpu.birentech.com", "pool": "node-7", "device": CARDS[card],
             "adminAccess": admin}
            for card in cards
        ]  # fmt: skip
        self.api.claims[f"/apis/resource.k8s.io/v1/namespaces/team/resourceclaims/{name}"] = {
            "metadata": {"uid": asked.uid},
            "status": {"allocation": {"devices": {"results": results}}},
        }

    async def prepare(self, name: str, instance: int, *, give_up: bool = False) -> None:
        asked = self.ids.get(name)
        if asked is None:
            return
        answer: Any = None
        with trio.CancelScope() as scope:
            self.files.give_up = scope if give_up else None
            answer = (await self.instances[instance].prepare([asked]))[asked.uid]
        self.files.give_up = None
        if isinstance(answer, list):
            parsed = [ClaimDevice.parse(each.cdi_id) for each in answer]
            self.believed[asked.uid] = asked, tuple(each for each in parsed if each is not None)

    async def unprepare(self, at: int, instance: int) -> None:
        if self.believed:
            uid = sorted(self.believed)[at % len(self.believed)]
            asked, _ = self.believed[uid]
            assert await self.instances[instance].unprepare([asked]) == {uid: ""}
            del self.believed[uid]
            self.lost = {device: holder for device, holder in self.lost.items() if holder != uid}
            self.offer()

    def vanish(self, at: int) -> None:
        """A claim's file goes, and the kubelet's reports have shown it."""
        if self.believed:
            uid = sorted(self.believed)[at % len(self.believed)]
            self.files.remove(uid)
            self.lost |= {each.device: uid for each in self.believed[uid][1] if not each.admin}
            self.offer()

    async def restore(self) -> None:
        believed = {
            uid: ClaimUse(asked.namespace, asked.name, devices, Holder("team", asked.name))
            for uid, (asked, devices) in self.believed.items()
        }
        files = self.files.read_all()
        seen = ClaimsSeen(believed, files, frozenset(believed.keys() - files.keys()))
        observed = Board[Observed]()
        observed.post(Observed(claims=seen))
        keeping = ClaimFileRepair(cast("ApiServer", self.api), self.files, self.lock)
        with trio.move_on_after(5) as waiting:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keeping.run, observed, self.offers)
                while believed.keys() - self.files.read_all().keys():  # noqa: ASYNC110 - files
                    await trio.sleep(0.001)
                nursery.cancel_scope.cancel()
        assert not waiting.cancelled_caught, "each lost file is written again"
        self.lost = {}
        self.offer()

    def plugin(self, card: int) -> None:
        """A pod that got the card through the device plugin comes to light, or has gone."""
        device = POOL.devices[CARDS[card]]
        key = device.resource, device.id
        held = {each.device for _, claimed in self.believed.values() for each in claimed}
        if key in self.plugin_pods:
            del self.plugin_pods[key]
        elif CARDS[card] not in held:
            self.plugin_pods[key] = Holder("team", "plugin-pod")
        self.offer()

    def check(self) -> None:
        claimed = [each for _, devices in self.believed.values() for each in devices]
        held = Counter(each.device for each in claimed if not each.admin)
        held.update(
            name for name, device in POOL.devices.items()
            if (device.resource, device.id) in self.plugin_pods
        )  # fmt: skip
        assert all(count == 1 for count in held.values()), held
        files = self.files.read_all()
        assert files.keys() <= self.believed.keys(), "what was given up or failed left no file"
        for uid, file in files.items():
            assert file.devices == self.believed[uid][1]


claims = st.sampled_from("abc")
instances = st.integers(0, 1)
cards = st.lists(st.integers(0, 2), min_size=1, max_size=2, unique=True)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("run"), claims, cards, st.sampled_from([False, False, True]), instances),
        st.tuples(st.just("run"), claims, cards, st.just(False), instances),
        st.tuples(st.just("prepare"), claims, instances),
        st.tuples(st.just("give up"), claims, cards, instances),
        st.tuples(st.just("unprepare"), st.integers(0, 3), instances),
        st.tuples(st.just("vanish"), st.integers(0, 3)),
        st.tuples(st.just("restore")),
        st.tuples(st.just("restart"), instances),
        st.tuples(st.just("plugin"), st.integers(0, 2)),
    ),
    min_size=5,
    max_size=20,
)


async def live(folder: Path, history: list[tuple[Any, ...]]) -> None:
    node = Node(folder)
    for what, *how in history:
        match what:
            case "run":
                node.allocate(how[0], how[1], admin=how[2])
                await node.prepare(how[0], how[3])
            case "prepare":
                await node.prepare(*how)
            case "give up":
                node.allocate(how[0], how[1], admin=False)
                await node.prepare(how[0], how[2], give_up=True)
            case "unprepare":
                await node.unprepare(*how)
            case "vanish":
                node.vanish(*how)
            case "restore":
                await node.restore()
            case "restart":
                node.instances[how[0]] = node.instance()
            case "plugin":
                node.plugin(*how)
        node.check()


@contextmanager
def no_patience() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claim_service, "PATIENCE", 0.0)
        yield


@examples(100)
@given(steps)
def test_no_two_claims_ever_hold_one_card(history: list[tuple[Any, ...]]) -> None:
    with no_patience(), tempfile.TemporaryDirectory(prefix="br") as folder:
        trio.run(partial(live, Path(folder), history))
