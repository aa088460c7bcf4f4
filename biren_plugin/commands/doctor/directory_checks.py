"""The host's directories: whether the daemon can create files in them, and whether its pod has them mounted."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from biren_plugin.commands.doctor import in_pod
from biren_plugin.commands.doctor.diagnosis import AS_ROOT, Check, failure, ok, unknown, warning
from biren_plugin.core.parse import vendor
from biren_plugin.core.settings import Settings
from biren_plugin.device_plugin.kubelet_folder import KubeletFolder
from biren_plugin.errors import reason_of
from biren_plugin.host.host_paths import under

_MOUNTINFO: Final = Path("/proc/self/mountinfo")
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


def kubelet_directory(path: Path, folder: KubeletFolder) -> Check:
    """Return the row of the kubelet's directory of device plugin sockets, with `folder` as its content."""
    name = "kubelet's directory"
    if folder.trouble:
        return unknown(name, f"{path}: {folder.trouble}", AS_ROOT)
    if not folder.exists:
        advice = (
            "is the kubelet installed, and --device-plugin-dir its directory? "
            "in a container: is it mounted?"
        )
        return failure(name, f"there is no {path}", advice)
    return _writable(name, path) or ok(name, f"{path}")


def registry_directory(registry: Path, plugin: Path) -> Check:
    """Return the row of the kubelet's directories for drivers: where they register, and where they serve."""
    name = "DRA sockets"
    if not registry.is_dir():
        advice = "is --kubelet-root the kubelet's --root-dir, and mounted at the same path?"
        return failure(name, f"there is no {registry}", advice)
    return _writable(name, registry) or ok(name, f"in {registry} and {plugin}")


def _writable(name: str, path: Path) -> Check | None:
    """Return the row of a directory in which nothing can be created; None if something can."""
    if os.access(path, os.W_OK):
        return None
    advice = "mount it for writing, and run as root"
    return failure(name, f"nothing can be created in {path}", advice)


def check_mounts(settings: Settings) -> Iterator[Check]:
    """Yield a row for each directory of the host that the daemon's pod needs."""
    if not in_pod():
        yield ok("mounts", "not needed: this is not a pod")
        return
    try:
        types = mount_types(_MOUNTINFO.read_text())
    except OSError as error:
        yield unknown("mounts", f"{_MOUNTINFO}: {reason_of(error)}")
        return
    root = settings.host_root
    yield _mount("sys", under(root, "/sys"), types, only="sysfs")
    nodes = "with the device node of each card" if _has_all_nodes(settings) else ""
    yield _mount("dev", under(root, "/dev"), types, only="devtmpfs", proof=nodes)
    yield _mount("kubelet", settings.device_plugin_dir, types)
    yield _mount("pod resources", settings.pod_resources_dir, types, needed=False)
    if settings.mount_host_path:
        yield _mount("usr", under(root, "/usr"), types, needed=False)
    if settings.cdi_feature:
        yield _mount("CDI", settings.cdi_dir, types)
    if settings.nfd_features_dir is not None:
        yield _mount("features", settings.nfd_features_dir, types, needed=False)


def _mount(
    what: str,
    path: Path,
    types: dict[str, str],
    *,
    only: str = "",
    proof: str = "",
    needed: bool = True,
) -> Check:
    """Return the row of one mount.

    `only`: the host's file system type, if the container's own mount has a different type. `proof`: a
    finding that shows the mount to be the host's anyway.
    """
    name = f"mount of {what}"
    there = type_at(f"{path.resolve()}", types)
    if there is not None and only in ("", there):
        return ok(name, f"{path} is {there}")
    if proof:
        return ok(name, f"{path}{f' is {there},' if there is not None else ''} {proof}")
    seen = f"{path} is the container's own" + (f" ({there})" if there is not None else "")
    return (failure if needed else warning)(name, seen, f"mount the host's directory at {path}")


def _has_all_nodes(settings: Settings) -> bool:
    """Return whether every card of the driver has its node: then the type of /dev does not matter."""
    if settings.offers_groups:
        return False
    try:
        cards = os.listdir(under(settings.host_root, vendor.CLASS_FOLDER))
    except OSError:
        return False
    nodes = under(settings.host_root, vendor.NODE_FOLDER)
    return bool(cards) and all((nodes / name).is_char_device() for name in cards)


def mount_types(mountinfo: str) -> dict[str, str]:
    """Return the file system type by mount point, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

    Of several mounts over each other, the last counts.
    """
    types = {}
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if separator and len(fields) > 4:
            point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
            types[point] = after.split(" ")[0]
    return types


def type_at(path: str, types: Mapping[str, str]) -> str | None:
    """Return the type of the mount at `path` or above it; None if that is only the root."""
    for each in (PurePosixPath(path), *PurePosixPath(path).parents):
        if f"{each}" != "/" and f"{each}" in types:
            return types[f"{each}"]
    return None
