"""The daemon: what the running one found, its settings, and the limits and mounts of its process."""

import os
import re
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

import inotify_simple

from biren_plugin.commands.doctor import in_pod
from biren_plugin.commands.doctor.diagnosis import (
    Check,
    by_reason,
    failure,
    ok,
    some_of,
    unknown,
    warning,
)
from biren_plugin.commands.show_status import ask
from biren_plugin.core.health.modes import describe_modes
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.sysfs import by_number
from biren_plugin.core.settings import Settings
from biren_plugin.errors import StatusUnavailable, reason_of
from biren_plugin.host.host_paths import under
from biren_plugin.unix_sockets import in_user_namespace

_NAME: Final = "daemon"
_ADVICE: Final = "each reason comes with advice; all of them: br-gpu-device-plugin status"


def check_daemon(settings: Settings) -> Iterator[Check]:
    """Yield one row about the daemon's answer on its socket."""
    try:
        document = ask(settings.status_dir)
    except StatusUnavailable as error:
        if isinstance(error.__cause__, (TimeoutError, BlockingIOError)):
            seen, _, advice = f"{error}".rpartition("; ")
            yield failure(_NAME, seen, advice)
        else:
            yield unknown(_NAME, f"{error}")
        return
    who = f"process {document['pid']}, {document['role']}"
    if document["role"] == "standing by" and document["problems"]:
        yield failure(_NAME, f"{who}: {some_of(document['problems'])}", _ADVICE)
        return
    if document["role"] == "standing by":
        yield ok(_NAME, f"{who}: another instance serves the node")
        return
    resources = document["resources"]
    devices = [device for each in resources for device in each["devices"]]
    devices.sort(key=lambda each: by_number(each["card"]))
    unhealthy = by_reason(
        (each["card"], each["reasons"]) for each in devices if not each["healthy"]
    )
    lost = [each["resource"] for each in resources if not each["registered"]]
    doubts = by_reason((each["card"], each["warnings"]) for each in devices if each["warnings"])
    found = some_of([*document["problems"], *unhealthy, *doubts])
    if unhealthy or lost:
        yield failure(_NAME, f"{who}: {found}", _ADVICE)
    elif found:
        yield warning(_NAME, f"{who}: {found}", _ADVICE)
    else:
        yield ok(_NAME, f"{who}, {len(devices)} devices healthy")


def check_settings_file(settings: Settings) -> Iterator[Check]:
    """One row: the file that the settings were read from."""
    if settings.file is None:
        yield ok("settings file", "none: neither --config nor --config-dir is given")
    else:
        yield ok("settings file", f"{settings.file.path}")


def check_probes(settings: Settings) -> Iterator[Check]:
    """One row, of how the probes count with these settings."""
    not_enforced = describe_modes(settings.health_policy.modes)
    yield ok("probes", f"not enforced: {not_enforced}" if not_enforced else "all are enforced")


_MOUNTINFO: Final = Path("/proc/self/mountinfo")
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_ENOUGH_DESCRIPTORS: Final = 128
"""The daemon has about 20 open files of its own, and one for each connection."""


def check_limits(_settings: Settings) -> Iterator[Check]:
    """Yield rows of the limit on open files, and of inotify."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    if unlimited or soft >= _ENOUGH_DESCRIPTORS:
        yield ok("descriptors", "unlimited" if unlimited else f"{soft} may be open")
    else:
        advice = f"allow {_ENOUGH_DESCRIPTORS} at least (ulimit -n)"
        yield warning("descriptors", f"only {soft} may be open", advice)
    if in_user_namespace():
        seen = "this process runs in a user namespace: the kubelet's user id is not root here"
        yield failure("user namespace", seen, "remove hostUsers: false from the pod")
    try:
        inotify_simple.INotify().close()
    except OSError as error:
        yield warning(
            "inotify",
            reason_of(error),
            "changes are seen once a second instead of at once; raise fs.inotify.max_user_instances, or ulimit -n",
        )
    else:
        yield ok("inotify", "inotify is available")


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
