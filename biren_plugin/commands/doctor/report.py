"""`doctor --report FILE`: lets a developer without the hardware see what the node shows.

A tar.gz with doctor.json, devices.json and `host`, the root of a copy of the host's files:
`br-gpu-device-plugin devices --host-root host`. It has names and numbers of hardware and nothing else: no
configuration, log, environment or file of any user.
"""

import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from biren_plugin.commands.doctor.passthrough_checks import PCI, biren_functions
from biren_plugin.commands.doctor.recording import Recorder
from biren_plugin.commands.show_devices import cards_document, judge_once
from biren_plugin.core.parse import sysfs, vendor
from biren_plugin.core.settings import Settings
from biren_plugin.errors import HostUnreadable, ReportTooSlow
from biren_plugin.host.host_paths import under
from biren_plugin.host.readers import read_host

STANDARD_OUTPUT: Final = Path("-")
_DRM: Final = "/sys/class/drm"
_ATTRIBUTES: Final = (*sysfs.FIXED_ATTRIBUTES, *sysfs.CHANGING_ATTRIBUTES, "vendor")
_FUNCTION: Final = ("config", "driver", "iommu_group", "physfn", "sriov_numvfs", "sriov_totalvfs")
_FILES: Final = (
    f"{vendor.MODULE_FOLDER}/version",
    vendor.CONTROL_NODE,
    vendor.TOOL,
)


async def write_report(
    path: Path, settings: Settings, diagnosis: dict[str, Any], *, deadline: float
) -> None:
    """Write the archive to `path`, or to standard output. Raises `OSError`, and `ReportTooSlow`."""
    packed = b""
    with trio.move_on_after(deadline) as reading:
        packed = await trio.to_thread.run_sync(_pack, settings, diagnosis, abandon_on_cancel=True)
    if reading.cancelled_caught:
        raise ReportTooSlow(
            f"reading the host's files did not end in {deadline:g} s: no report was written; "
            "see `dmesg` on the node for what hangs"
        )
    if path == STANDARD_OUTPUT:
        sys.stdout.buffer.write(packed)
        sys.stdout.flush()
    else:
        await trio.Path(path).write_bytes(packed)


def _pack(settings: Settings, diagnosis: dict[str, Any]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        recorder = Recorder(settings.host_root, archive, "host")
        for path in _paths(settings.host_root):
            recorder.add(path)
        recorder.add_text("doctor.json", _text({**diagnosis, "complete": not recorder.full}))
        with suppress(HostUnreadable):  # doctor.json says so
            cards = read_host(attrs.evolve(settings, container_runtime="runc"))
            devices = cards_document(cards, judge_once(cards))
            recorder.add_text("devices.json", _text(devices))
    return packed.getvalue()


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


def _paths(root: Path) -> Iterator[str]:
    """Yield the paths that the daemon reads on a host, with any settings."""
    yield from _FILES
    for name in _listed(root, vendor.CLASS_FOLDER):
        yield f"{vendor.CLASS_FOLDER}/{name}"
        yield from (f"{vendor.CLASS_FOLDER}/{name}/device/{each}" for each in _ATTRIBUTES)
    for name in _listed(root, vendor.NODE_FOLDER):
        yield f"{vendor.NODE_FOLDER}/{name}"
    for name in _listed(root, "/dev/vfio"):
        yield f"/dev/vfio/{name}"
    for name in _listed(root, vendor.LIBRARY_FOLDER):
        if name.startswith(vendor.LIBRARY):
            yield f"{vendor.LIBRARY_FOLDER}/{name}"
    for name in _listed(root, _DRM):
        if name.startswith("renderD"):
            yield f"{_DRM}/{name}/device/driver"
            yield f"/dev/dri/{name}"
    with suppress(OSError):
        for function in biren_functions(root):
            links = [n for n in _listed(root, f"{PCI}/{function}") if n.startswith("virtfn")]
            for name in (*_ATTRIBUTES, *_FUNCTION, *links):
                yield f"{PCI}/{function}/{name}"
            # The names and drivers of the group's other functions count too.
            members = f"{PCI}/{function}/iommu_group/devices"
            for other in _listed(root, members):
                yield from (f"{PCI}/{other}", f"{members}/{other}/driver")


def _listed(root: Path, folder: str) -> list[str]:
    try:
        return sorted(os.listdir(under(root, folder)))
    except OSError:
        return []
