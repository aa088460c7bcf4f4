"""The driver, its cards, the driver's files in /dev and /usr, and its management library."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from biren_plugin.commands.doctor import in_pod
from biren_plugin.commands.doctor.diagnosis import (
    AS_ROOT,
    Check,
    by_reason,
    cure_of,
    failure,
    ok,
    some_of,
    unknown,
    warning,
)
from biren_plugin.commands.show_devices import judge_once
from biren_plugin.core.card_names import by_number
from biren_plugin.core.inventory.excluded_cards import is_uuid
from biren_plugin.core.inventory.gpu_grouping import names_of_card
from biren_plugin.core.inventory.physical_gpus import on_their_gpus
from biren_plugin.core.model import Inventory, Snapshot
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.card import Card, NodeState
from biren_plugin.core.parse.splits import SPLITS_IN_WORDS
from biren_plugin.core.parse.vendor import driver_suffices, version_numbers
from biren_plugin.core.settings import Settings
from biren_plugin.errors import HostUnreadable, LibraryMissing, LibraryUnusable
from biren_plugin.host.brml_reader import BrmlReader
from biren_plugin.host.host_paths import under, why_no_directory
from biren_plugin.host.readers import read_host

_SEE_SYS: Final = f"on the node: `{vendor.MODPROBE}`; in a container: mount the host's /sys"


def check_cards(settings: Settings) -> Iterator[Check]:
    """Yield rows of the driver, its cards and their nodes; a kata node needs none of them."""
    if settings.offers_groups:
        yield ok("driver", "not needed: --container-runtime kata allocates VFIO groups")
        return
    root = settings.host_root
    if why := why_no_directory(root):
        advice = "mount the host's / or its /sys and /dev there, or correct --host-root"
        yield failure("driver", why, advice)
        return
    try:
        snapshot = read_host(settings)
    except HostUnreadable as error:
        yield unknown("driver", f"{error}", cure_of(error))
        return
    yield _driver(snapshot)
    if snapshot.driver_loaded:
        yield _cards(snapshot)
        yield _nodes(snapshot.cards)
        yield _links_to_nodes(settings.host_root, snapshot.cards)
        yield from _judgements(snapshot, settings.exclude)
        yield _control_node(snapshot)
    yield from _extras(settings, snapshot)


def _driver(snapshot: Snapshot) -> Check:
    least = ".".join(map(str, vendor.MINIMUM_DRIVER))
    if not snapshot.driver_loaded:
        if snapshot.module_loaded:
            return failure(
                "driver", f"the module is loaded, {vendor.CLASS_FOLDER} is missing", _SEE_SYS
            )
        return failure("driver", f"not loaded: there is no {vendor.CLASS_FOLDER}", _SEE_SYS)
    version = snapshot.driver_version
    if version is None and snapshot.module_loaded is False:
        # Not a failure: a driver that is built into the kernel need not have that directory.
        seen = (
            f"{vendor.CLASS_FOLDER} exists, but not {vendor.MODULE_FOLDER}: "
            "the module may have been unloaded"
        )
        return warning(
            "driver", seen, f"on the node: `lsmod | grep {vendor.MODULE}`, `{vendor.MODPROBE}`"
        )
    if version is None:
        return unknown("driver", f"loaded; {vendor.MODULE_FOLDER}/version has no version")
    match driver_suffices(version):
        case None:
            return unknown("driver", f"loaded; its version {version!r} is not a number")
        case False:
            return failure("driver", f"loaded, version {version}", f"install {least} or newer")
        case _:
            return ok("driver", f"loaded, version {version}")


def _cards(snapshot: Snapshot) -> Check:
    cards = on_their_gpus(snapshot.cards)
    if not cards:
        return failure(
            "cards", f"no card in {vendor.CLASS_FOLDER}", f"see `{vendor.LSPCI}` on the node"
        )
    gpus = {card.physical_id for card in cards if card.physical_id is not None}
    return ok("cards", f"{len(cards)} cards, on {len(gpus)} GPUs")


def _nodes(cards: tuple[Card, ...]) -> Check:
    name = "device nodes"
    bad = [card for card in cards if card.node in (NodeState.MISSING, NodeState.OTHER)]
    if bad:
        return failure(
            name,
            some_of([f"{card.path} is {card.node.value}" for card in bad]),
            f"in a container: mount the host's /dev; on the node: see `{vendor.KERNEL_LOG}`",
        )
    if any(card.node is NodeState.UNKNOWN for card in cards):
        return unknown(name, f"{vendor.NODE_FOLDER} cannot be read", AS_ROOT)
    return ok(name, "a character device for each card" if cards else "none, as there is no card")


def _links_to_nodes(root: Path, cards: Sequence[Card]) -> Check:
    """Check `/dev/char/MAJOR:MINOR`, by which systemd finds a container's devices at each daemon-reload."""
    name = "/dev/char links"
    folder = under(root, "/dev/char")
    if not cards:
        return ok(name, "none, as there is no card")
    try:
        there = folder.is_dir()
    except PermissionError:
        return unknown(name, f"{folder} cannot be read", AS_ROOT)
    if not there:
        return unknown(name, f"there is no {folder}", "see `ls /dev/char` on the node")
    if not os.access(folder, os.X_OK):
        return unknown(name, f"{folder} cannot be read", AS_ROOT)
    missing = []
    for card in cards:
        try:
            number = os.stat(under(root, card.path)).st_rdev
        except OSError:
            continue  # reported in the row of the nodes
        link = f"{os.major(number)}:{os.minor(number)}"
        if not os.path.lexists(folder / link):
            missing.append(f"{card.path} has no /dev/char/{link}")
    if missing:
        return warning(
            name,
            some_of(missing),
            "after `systemctl daemon-reload`, containers of runc lose these cards: on the node, run "
            "`udevadm trigger`, or link each node there",
        )
    return ok(name, "one for each device node")


def _judgements(snapshot: Snapshot, exclude: Sequence[str]) -> Iterator[Check]:
    inventory = judge_once(snapshot, exclude)
    if exclude:
        yield check_excluded(inventory, exclude)
    if inventory.unsettled:
        yield warning(
            "splits", some_of(inventory.unsettled), f"see `{vendor.TOOL_LIST}` on the node"
        )
    else:
        yield ok("splits", f"each GPU is split into {SPLITS_IN_WORDS} parts")
    count, unhealthy, doubts = judged_devices(inventory)
    advice = "follow the advice of each reason; `br-gpu-device-plugin devices` shows all of them"
    if unhealthy:
        yield failure("health", some_of([*unhealthy, *doubts]), advice)
    elif doubts:
        yield warning("health", some_of(doubts), advice)
    elif count:
        yield ok("health", f"{count} devices are healthy in this scan")


def judged_devices(inventory: Inventory) -> tuple[int, list[str], list[str]]:
    """Return the number of devices, the reasons of the Unhealthy ones, and the warnings about any, by card."""
    devices = [device for each in inventory.lists for device in each.devices]
    devices.sort(key=lambda each: by_number(each.id))
    named = [(each, each.id, names_of_card(each.card)) for each in devices]
    unhealthy = by_reason(
        (name, names, each.reasons) for each, name, names in named if not each.healthy
    )
    doubts = by_reason((name, names, each.warnings) for each, name, names in named if each.warnings)
    return len(devices), unhealthy, doubts


def check_excluded(inventory: Inventory, exclude: Sequence[str]) -> Check:
    """Yield the row of the cards that the setting `exclude` leaves out."""
    name = "excluded cards"
    left_out = [f"{each.device.id} by --exclude {each.word}" for each in inventory.excluded]
    if inventory.unmatched:
        return warning(name, some_of(inventory.unmatched), "correct --exclude")
    if uuids := [word for word in exclude if is_uuid(word)]:
        seen = some_of([*left_out, *(f"--exclude {word} is a UUID" for word in uuids)])
        return unknown(name, seen, "`br-gpu-device-plugin status` shows what the daemon excludes")
    return ok(name, some_of(left_out))


def _control_node(snapshot: Snapshot) -> Check:
    name = "control node"
    if snapshot.host.control_node:
        return ok(name, f"{vendor.CONTROL_NODE} exists")
    version = version_numbers(snapshot.driver_version or "")
    if version is not None and version < vendor.CONTROL_NODE_SINCE:
        return ok(name, f"no {vendor.CONTROL_NODE}, as with other drivers before 1.10")
    return warning(
        name,
        f"there is no {vendor.CONTROL_NODE}",
        "Biren's libraries need it in each container; in a container: mount the host's /dev",
    )


def _extras(settings: Settings, snapshot: Snapshot) -> Iterator[Check]:
    if not settings.mount_dri_device:
        yield ok("vgem", "not needed without --mount-dri-device")
    elif snapshot.host.dri_node is not None:
        yield ok("vgem", f"{snapshot.host.dri_node} is vgem's")
    else:
        yield warning("vgem", "no render node of vgem in /dev/dri", "on the node: `modprobe vgem`")
    if settings.mount_host_path:
        files = [each for each in snapshot.host.absent if each.startswith("/")]
        if files:
            yield warning(
                "driver files",
                some_of([f"no {each}: {snapshot.host.why_absent(each)}" for each in files]),
                "install the driver's tools; in a container: mount the host's /usr, and the "
                "directory that a link leads to",
            )
        else:
            yield ok("driver files", f"{len(snapshot.host.mounts)} to be mounted")


_NAME = "management library"


def check_library(settings: Settings) -> Iterator[Check]:
    """Yield one row. Opens the library, which may hang with a broken driver."""
    reader = BrmlReader(settings.host_root)
    try:
        reader.names()
    except LibraryMissing:
        if in_pod() and settings.host_root == Path("/"):
            yield unknown(_NAME, "none in this container; the node may have one")
        else:
            yield ok(_NAME, "none; it is optional, and cards are judged without it")
        return
    except LibraryUnusable as error:
        yield warning(_NAME, f"{error}", f"cards are judged without it; see `{vendor.TOOL_HEALTH}`")
        return
    assert reader.library is not None
    facts = reader.library.facts
    seen = f"{facts.path}, version {facts.library_version or 'unknown'}"
    if facts.lacking:
        seen += f", too old for {some_of(facts.lacking)}"
    yield ok(_NAME, seen)
