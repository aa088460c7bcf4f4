"""`doctor --report FILE`: lets a developer without the hardware see what the node shows.

A tar.gz with doctor.json, devices.json and `host`, the root of a copy of the host's files:
`br-gpu-device-plugin devices --host-root host`. It has names and numbers of hardware and nothing else: no
configuration, log, environment or file of any user. Only the requested paths and the links on the way to
them are recorded; a device node becomes a link to /dev/null, which is a character device on every machine.
All sizes are bounded: a report travels by mail.
"""

import io
import json
import os
import stat
import sys
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from biren_plugin.commands.doctor.passthrough_checks import PCI, biren_functions
from biren_plugin.commands.show_devices import cards_document, judge_once
from biren_plugin.core.parse import sysfs, vendor
from biren_plugin.core.settings import Settings
from biren_plugin.errors import HostUnreadable, ReportTooSlow
from biren_plugin.host.host_paths import under, walk
from biren_plugin.host.readers import read_host

_MAX_FILE: Final = 65_536
_MAX_ENTRIES: Final = 20_000
_MAX_BYTES: Final = 16 * 1024**2


class Recorder:
    """Adds files below the host's `root` to `archive`, under the directory `name`."""

    def __init__(self, root: Path, archive: tarfile.TarFile, name: str) -> None:
        self._root = root
        self._archive = archive
        self._name = name
        self._added: set[str] = set()
        self._bytes = 0
        self.full = False
        """Whether a limit made something be left out."""

    def add(self, path: str) -> None:
        """Add the file, directory (without its content) or node at the host's `path`, and links to it.

        Missing and unreadable files are left out: the copy lacks them too.
        """
        try:
            for here, target in walk(self._root, path):
                # The nodes of a recorded or simulated host are links to /dev/null.
                if target == os.devnull:
                    self._add_link(here, target)
                    return
                if target is not None:
                    self._add_link(here, target)
                    continue
                mode = os.lstat(under(self._root, here)).st_mode
                if stat.S_ISCHR(mode):
                    self._add_link(here, os.devnull)
                elif stat.S_ISREG(mode):
                    self._add_file(here)
                elif stat.S_ISDIR(mode):
                    self._add_entry(here, tarfile.DIRTYPE)
        except OSError:
            return

    def add_text(self, name: str, text: str) -> None:
        """Add a file of the report itself."""
        self._write(tarfile.TarInfo(name), text.encode())

    def _add_link(self, path: str, target: str) -> None:
        # A link to an absolute path leads out of the copy; only this package's readers resolve it there.
        self._add_entry(path, tarfile.SYMTYPE, target)

    def _add_file(self, path: str) -> None:
        descriptor = os.open(under(self._root, path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._add_entry(path, tarfile.REGTYPE, content=os.read(descriptor, _MAX_FILE))
        finally:
            os.close(descriptor)

    def _add_entry(self, path: str, kind: bytes, target: str = "", content: bytes = b"") -> None:
        if path in self._added:
            return
        if len(self._added) >= _MAX_ENTRIES or self._bytes + len(content) > _MAX_BYTES:
            self.full = True
            return
        self._added.add(path)
        self._bytes += len(content)
        entry = tarfile.TarInfo(self._name + path)
        entry.type = kind
        entry.linkname = target
        entry.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
        self._write(entry, content)

    def _write(self, entry: tarfile.TarInfo, content: bytes) -> None:
        entry.size = len(content)
        self._archive.addfile(entry, io.BytesIO(content))


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
        with suppress(HostUnreadable):  # doctor.json has the reason
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
