"""Offers the node's cards through DRA: the daemon's identity, the offer, the driver, its slices.

1. The driver serves claims in every instance on the node; the one that holds the lock on the
   kubelet's device-plugins directory publishes, so that a plugin and a driver never offer together.
2. Faults of the API server affect publishing and new claims, never the registration.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trio

from biren_plugin.board import Board, news_of
from biren_plugin.cluster.api_server import ApiServer, path_of_node
from biren_plugin.cluster.credentials import load_from, who_am_i
from biren_plugin.cluster.object_watch import Objects, watch_objects
from biren_plugin.core.dra.driver_state import DriverState
from biren_plugin.core.dra.pool import Pool, Uuids, known_uuids, pool_of
from biren_plugin.core.dra.slice_writes import Owner
from biren_plugin.core.model import Inventory
from biren_plugin.core.observed import NO_CLAIMS, ClaimsSeen, Holders, Observed
from biren_plugin.core.parse.api_shapes import Shape, shaped
from biren_plugin.core.settings import Settings
from biren_plugin.daemon_state import DaemonState
from biren_plugin.device_plugin.folder_lock import Hindrance, hold_folder
from biren_plugin.device_plugin.kubelet_folder import KubeletFolder
from biren_plugin.dra.claim_file_repair import ClaimFileRepair, watch_files
from biren_plugin.dra.claim_service import ClaimService, Offer
from biren_plugin.dra.driver import Registered, run_driver
from biren_plugin.dra.driver_sockets import DriverSockets, remove_stale, sockets_of
from biren_plugin.dra.slice_publisher import PATH, Published, SlicePublisher, selection
from biren_plugin.errors import (
    ApiError,
    ApiUnreachable,
    FolderDead,
    NodeError,
    SocketUnusable,
    too_slow,
)
from biren_plugin.files.claim_files import ClaimFiles
from biren_plugin.host.host_paths import why_no_directory
from biren_plugin.notice import say
from biren_plugin.records import frozen
from biren_plugin.supervise import Pace, flatten, keep_running
from biren_plugin.worker_thread import PATIENCE, WorkerThread

PACE: Final = Pace(first_wait=0.8, longest_wait=10.0)
"""As often as a kubelet reports its node: a fault during an outage is stored within 15 s of its end."""
AFTER_CLAIM: Final = 1.5
"""Seconds after a change of a claim in which the kubelet is asked often for holders."""
_NODE: Final[Shape] = {"metadata": {"uid": str}}
_HERE: Final = "by-hand"
"""The instance name of a daemon outside of a pod."""


@frozen
class Identity:
    """The daemon's identity in the cluster."""

    owner: Owner
    instance: str
    """Distinguishes two daemons on one node: the pod's uid."""


async def offer_by_dra(
    settings: Settings,
    state: DaemonState,
    folder: Board[KubeletFolder],
    beside: Sequence[Callable[[], Awaitable[None]]],
) -> None:
    """Offer the cards until failing or cancelled; `beside` are tasks of the instance that publishes.

    Raises `FolderDead`, and an `ExceptionGroup` of bugs.
    """
    state.driver = DriverState()
    thread = WorkerThread()  # outlives restarts: no late removal of a socket hits a newer one
    dead: FolderDead | None = None

    async def live() -> None:
        nonlocal dead
        try:
            await _offer(settings, state, folder, beside, thread)
        except* FolderDead as group:  # no new life helps, and it is not a bug
            dead = next(each for each in flatten(group) if isinstance(each, FolderDead))

    await keep_running(
        live,
        "dra",
        expected=(NodeError,),
        is_working=lambda: state.driver is not None and state.driver.registered,
        on_failure=partial(_note_failure, state),
        pace=PACE,
    )
    if dead is not None:
        raise dead


def _note_failure(state: DaemonState, cause: Exception) -> None:
    state.counters.restarted("dra", cause)
    state.driver = DriverState(trouble=str(cause))


async def _offer(
    settings: Settings,
    state: DaemonState,
    folder: Board[KubeletFolder],
    beside: Sequence[Callable[[], Awaitable[None]]],
    thread: WorkerThread,
) -> None:
    async with ApiServer(load_from(settings.kubeconfig)) as api:
        await _offer_in(api, settings, state, folder, beside, thread)


async def _offer_in(
    api: ApiServer,
    settings: Settings,
    state: DaemonState,
    folder: Board[KubeletFolder],
    beside: Sequence[Callable[[], Awaitable[None]]],
    thread: WorkerThread,
) -> None:
    identity = await _identify(api, settings)
    sockets = sockets_of(settings.kubelet_root, identity.instance)
    for path in await _clean_in_time(settings.kubelet_root, sockets, thread):
        say("stale_socket_removed", f"{path} removed: no process serves it", path=str(path))
    files = ClaimFiles(settings.claim_cdi_dir)
    offers, pools = Board[Offer](), Board[Pool]()
    registered = Board[Registered]()
    ask_soon = partial(state.ask_soon, AFTER_CLAIM)
    service = ClaimService(
        api, identity.owner.name, offers, files, sockets.lock, state.counters, state.last_calls,
        on_change=ask_soon,
    )  # fmt: skip
    publisher = SlicePublisher(api, identity.owner)
    restarted = state.counters.restarted
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_make_offers, settings, state, offers, pools)
        nursery.start_soon(ClaimFileRepair(api, files, sockets.lock).run, state.observed, offers)
        nursery.start_soon(watch_files, settings.claim_cdi_dir, ask_soon)
        nursery.start_soon(_keep_state, state, registered, publisher.published, api.forbidden)
        nursery.start_soon(
            partial(
                keep_running,
                partial(run_driver, sockets, service, registered, thread),
                "driver",
                expected=(NodeError,),
                on_failure=partial(restarted, "driver"),
            )
        )
        while True:
            state.role = "waiting"
            with await hold_folder(
                settings.device_plugin_dir, folder, partial(_stand_by, state)
            ) as held:
                state.role = "serving"
                async with trio.open_nursery() as serving:
                    serving.start_soon(
                        _publish, api, identity.owner, publisher, pools,
                        partial(_note_slices, state, publisher),
                    )  # fmt: skip
                    for task in beside:
                        serving.start_soon(task)
                    await held.until_replaced(folder)
                    serving.cancel_scope.cancel()


async def _clean_in_time(
    kubelet_root: Path, sockets: DriverSockets, thread: WorkerThread
) -> list[Path]:
    """Do the same as `_clean` in a thread. Raises `SocketUnusable` and `NoThread`."""
    with trio.move_on_after(PATIENCE):
        return await thread.run(partial(_clean, kubelet_root, sockets))
    raise SocketUnusable(too_slow(f"reading {kubelet_root}", PATIENCE))


def _clean(kubelet_root: Path, sockets: DriverSockets) -> list[Path]:
    """Remove sockets that no process serves, and return them. Blocks.

    Raises `SocketUnusable` without the root, which is the kubelet's to create: it may be a typing error.
    """
    if why := why_no_directory(kubelet_root):
        raise SocketUnusable(f"{why}; correct --kubelet-root")
    return remove_stale(sockets)


def _stand_by(state: DaemonState, hindrance: Hindrance) -> None:
    state.role = "standing by" if hindrance == "held" else "waiting"


async def _identify(api: ApiServer, settings: Settings) -> Identity:
    """Return the identity. Raises `ApiError`."""
    token = (await api.access()).token
    if settings.kubeconfig is None:
        found = who_am_i(token or "")
        return Identity(Owner(found.node, found.node_uid), found.pod_uid)
    if not settings.node_name:
        raise ApiUnreachable("--kubeconfig needs --node-name, the name of this node")
    node = await api.call("GET", path_of_node(settings.node_name))
    uid = shaped(node, _NODE, "a node")["metadata"]["uid"]
    return Identity(Owner(settings.node_name, uid), _HERE)


async def _make_offers(
    settings: Settings, state: DaemonState, offers: Board[Offer], pools: Board[Pool]
) -> None:
    """Post the node's offer whenever the inventory or the holders change.

    Cards that the kubelet reported as held through the device plugin stay held while it is silent.
    """
    holders: Holders | None = None
    uuids: Uuids = {}
    with news_of(state.inventory, state.observed) as news:
        while True:
            await news.receive()
            inventory: Inventory | None = state.inventory.latest
            seen = state.observed.latest or Observed()
            if inventory is None:
                continue
            holders = holders if seen.holders is None else seen.holders
            readings = seen.library.readings if seen.library is not None else {}
            uuids = known_uuids(inventory, readings, uuids)
            pool = pool_of(inventory, seen.driver_version, holders, settings.evict_on, uuids)
            visible = "none" if settings.offers_groups else settings.visible_devices
            lost = _lost(seen.claims or NO_CLAIMS)
            offer = Offer(pool, inventory.host, visible, holders, lost)
            if offer != offers.latest:
                offers.post(offer)
            if pools.latest is None or pool.slices != pools.latest.slices:
                for sentence in pool.nameless:
                    say("card_nameless", sentence)
                pools.post(pool)


def _lost(claims: ClaimsSeen) -> dict[str, str]:
    return {
        each.device: uid for uid in claims.lost for each in claims.devices_of(uid) if not each.admin
    }


async def _keep_state(
    state: DaemonState,
    registered: Board[Registered],
    published: Board[Published],
    forbidden: Board[tuple[str, ...]],
) -> None:
    with news_of(registered, published, forbidden) as news:
        while True:
            await news.receive()
            taken = registered.latest or Registered()
            slices = published.latest or Published()
            state.driver = DriverState(
                taken.taken, taken.trouble, taken.used, slices.wanted, slices.stored, slices.trouble,
                forbidden.latest or (), slices.dropped,
            )  # fmt: skip


def _note_slices(state: DaemonState, publisher: SlicePublisher, cause: Exception) -> None:
    state.counters.restarted("slices", cause)
    publisher.note_failure(cause)


async def _publish(
    api: ApiServer,
    owner: Owner,
    publisher: SlicePublisher,
    pools: Board[Pool],
    on_failure: Callable[[Exception], None],
) -> None:
    stored = Board[Objects]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_objects, api, PATH, selection(owner.name), stored, on_failure)
        await keep_running(
            partial(publisher.run, pools, stored),
            "slices",
            expected=(ApiError,),
            is_working=publisher.has_worked,
            on_failure=on_failure,
            pace=PACE,
        )
