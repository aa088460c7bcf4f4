"""The driver's own files that `--mount-host-path` mounts into containers, and the nodes beside the cards."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from biren_plugin.core.model import HostFacts, Mount
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.card import NodeState
from biren_plugin.core.parse.sysfs import library_name
from biren_plugin.host.host_paths import (
    dangling,
    find_node,
    node_state,
    resolve,
    under,
    why_no_directory,
    why_unreadable,
)

_DRM_CLASS: Final = "/sys/class/drm"


def read_host_facts(root: Path, *, mount_host_path: bool, mount_dri_device: bool) -> HostFacts:
    """Return what the node has besides cards. A file that cannot be read counts as missing."""
    mounts, absent = _driver_mounts(root) if mount_host_path else ([], [])
    dri_node = _vgem_node(root) if mount_dri_device else None
    if mount_dri_device and dri_node is None:
        absent.append("a render node of vgem in /dev/dri (on the node: `modprobe vgem`)")
    control_node = _is_node(root, vendor.CONTROL_NODE)
    nodes = [path for path in (vendor.CONTROL_NODE if control_node else None, dri_node) if path]
    found = ((path, find_node(root, path)[1]) for path in nodes)
    return HostFacts(
        control_node=control_node,
        dri_node=dri_node,
        links=tuple((path, real) for path, real in found if real is not None),
        mounts=tuple(mounts),
        absent=tuple(absent),
        dangling=tuple(
            (path, target)
            for path in absent
            if path.startswith("/") and (target := dangling(root, path)) is not None
        ),
        unreadable=tuple(
            (path, why)
            for path in absent
            if path.startswith("/") and (why := why_unreadable(root, path)) is not None
        ),
    )


def _is_node(root: Path, path: str) -> bool:
    return node_state(root, path) is NodeState.CHARACTER_DEVICE


def _driver_mounts(root: Path) -> tuple[list[Mount], list[str]]:
    names = {vendor.LIBRARY, vendor.LIBRARY_SONAME}
    with suppress(OSError):  # each library is then found absent below
        names.update(filter(library_name, os.listdir(under(root, vendor.LIBRARY_FOLDER))))
    mounts: list[Mount] = []
    absent: list[str] = []
    for path in [*(f"{vendor.LIBRARY_FOLDER}/{name}" for name in sorted(names)), vendor.TOOL]:
        real = resolve(root, path)
        if real is None:
            absent.append(path)
        else:
            mounts.append(Mount(real, vendor.CONTAINER_FOLDER + path.removeprefix("/usr")))
    tree = resolve(root, vendor.DRIVER_TREE)
    if tree is not None and not why_no_directory(under(root, tree)):
        mounts.append(Mount(tree, vendor.DRIVER_TREE))
    return mounts, absent


def _vgem_node(root: Path) -> str | None:
    """Return the render node whose driver is vgem: `modprobe vgem` on the host creates it."""
    try:
        names = sorted(each.name for each in under(root, _DRM_CLASS).glob("renderD*"))
    except OSError:
        return None
    for name in names:
        driver = resolve(root, f"{_DRM_CLASS}/{name}/device/driver")
        if driver is None or driver.rpartition("/")[2] != "vgem":
            continue
        if _is_node(root, f"/dev/dri/{name}"):
            return f"/dev/dri/{name}"
    return None
