"""The running daemon: what it found over time and with the management library."""

from collections.abc import Iterator
from typing import Final

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
from biren_plugin.core.parse.sysfs import by_number
from biren_plugin.core.settings import Settings
from biren_plugin.errors import StatusUnavailable

_NAME: Final = "daemon"
_ADVICE: Final = "each reason comes with advice; all of them: br-gpu-device-plugin status"


def check_daemon(settings: Settings) -> Iterator[Check]:
    """Yield one row about the daemon's answer on its socket."""
    try:
        document = ask(settings.status_dir)
    except StatusUnavailable as error:
        if isinstance(error.__cause__, TimeoutError):
            yield failure(
                _NAME, f"{error}", "it is stuck, or stopped: see its log, and restart its pod"
            )
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
