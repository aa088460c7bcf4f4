"""The daemon: what the running one found, its settings, and the limits of its process."""

import resource
from collections.abc import Iterator
from typing import Final

import inotify_simple

from biren_plugin.commands.doctor.diagnosis import (
    Check,
    by_reason,
    failure,
    ok,
    some_of,
    unknown,
    warning,
)
from biren_plugin.commands.node_problem import names_of_device
from biren_plugin.commands.show_status import ask
from biren_plugin.core.card_names import by_number
from biren_plugin.core.health.modes import describe_modes
from biren_plugin.core.settings import Settings
from biren_plugin.errors import ENOUGH_DESCRIPTORS, MORE_DESCRIPTORS, StatusUnavailable, reason_of
from biren_plugin.unix_sockets import in_user_namespace

_NAME: Final = "daemon"
_ADVICE: Final = "follow the advice of each reason; `br-gpu-device-plugin status` shows all of them"


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
        (each["card"], names_of_device(each), each["reasons"])
        for each in devices
        if not each["healthy"]
    )
    lost = [each["resource"] for each in resources if not each["registered"]]
    doubts = by_reason(
        (each["card"], names_of_device(each), each["warnings"])
        for each in devices
        if each["warnings"]
    )
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
    elif settings.file.trouble:
        advice = "correct it: the daemon does not start with it. The other rows are of the settings without it"
        yield failure("settings file", settings.file.trouble, advice)
    else:
        yield ok("settings file", f"{settings.file.path}")


def check_probes(settings: Settings) -> Iterator[Check]:
    """One row, of how the probes count with these settings."""
    not_enforced = describe_modes(settings.health_policy.modes)
    yield ok("probes", f"not enforced: {not_enforced}" if not_enforced else "all are enforced")


def check_limits(_settings: Settings) -> Iterator[Check]:
    """Yield rows of the limit on open files, and of inotify."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    if unlimited or soft >= ENOUGH_DESCRIPTORS:
        yield ok("descriptors", "unlimited" if unlimited else f"{soft} may be open")
    else:
        yield warning("descriptors", f"only {soft} may be open", MORE_DESCRIPTORS)
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
