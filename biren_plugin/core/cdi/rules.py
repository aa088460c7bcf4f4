"""Whether runtimes can load a CDI file, whoever wrote it.

One broken rule makes the whole file invisible to a runtime, with all its devices, so only the first
broken rule is reported. Source: the CDI specification 1.1.0 and its reference library.
"""

import re
from collections.abc import Collection
from typing import Any, Final

from biren_plugin.core.cdi.spec import Spec
from biren_plugin.errors import CdiSpecInvalid

_VERSION: Final = re.compile(r"(?:0\.[3-8]\.0|1\.[01]\.0)")
_KIND: Final = re.compile(
    r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?/[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?"
)
_DEVICE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_PERMISSIONS: Final = re.compile(r"[rwm]*")
_NODE_TYPES: Final = ("b", "c", "u", "p")

_SPEC_FIELDS: Final = {"cdiVersion", "kind", "annotations", "devices", "containerEdits"}
_DEVICE_FIELDS: Final = {"name", "annotations", "containerEdits"}
_EDIT_FIELDS: Final = {
    "env", "deviceNodes", "netDevices", "hooks", "mounts", "intelRdt", "additionalGids",
}  # fmt: skip
_NODE_FIELDS: Final = {
    "path", "hostPath", "type", "major", "minor", "fileMode", "permissions", "uid", "gid",
}  # fmt: skip
_MOUNT_FIELDS: Final = {"hostPath", "containerPath", "options", "type"}


def read_spec(document: object) -> Spec:
    """Return the spec in a file's first document. Raises `CdiSpecInvalid` with the rule that it breaks."""
    spec = _mapping(document, "the document", _SPEC_FIELDS, None)
    version = _text(spec, "cdiVersion", "the document")
    if not _VERSION.fullmatch(version):
        raise CdiSpecInvalid(f"unknown cdiVersion {version!r}", spec, "cdiVersion")
    kind = _text(spec, "kind", "the document")
    if not _KIND.fullmatch(kind):
        raise CdiSpecInvalid(
            f"kind {kind!r} is invalid: vendor and class begin with a letter", spec, "kind"
        )
    names: set[str] = set()
    devices = _list(spec, "devices", "the document")
    for device in devices:
        name = _text(_mapping(device, "a device", _DEVICE_FIELDS, devices), "name", "a device")
        if not _DEVICE.fullmatch(name):
            text = f"device name {name!r} is invalid: letters, digits and _.:- only"
            raise CdiSpecInvalid(text, device, "name")
        if name in names:
            raise CdiSpecInvalid(f"device {name} is there twice", device, "name")
        names.add(name)
        _check_edits(device, f"device {name}")
    if not names:
        raise CdiSpecInvalid("it holds no device", spec)
    if "containerEdits" in spec:
        _check_edits(spec, "the document")
    return spec


def _check_edits(owner: dict[str, Any], where: str) -> None:
    if owner.get("containerEdits") is None:
        raise CdiSpecInvalid(f"{where}: no containerEdits", owner)
    edits = _mapping(
        owner["containerEdits"], f"containerEdits of {where}", _EDIT_FIELDS, owner, "containerEdits"
    )
    if not any(edits.values()):
        raise CdiSpecInvalid(f"containerEdits of {where} are empty", owner, "containerEdits")
    nodes = _list(edits, "deviceNodes", where)
    for node in nodes:
        _text(_mapping(node, f"a device node of {where}", _NODE_FIELDS, nodes), "path", where)
        if not _PERMISSIONS.fullmatch(str(node.get("permissions", ""))):
            text = f"permissions {node['permissions']!r} of {where}: letters of rwm"
            raise CdiSpecInvalid(text, node, "permissions")
        if node.get("type", "c") not in _NODE_TYPES:
            text = f"type {node['type']!r} of {where}: one of {', '.join(_NODE_TYPES)}"
            raise CdiSpecInvalid(text, node, "type")
    mounts = _list(edits, "mounts", where)
    for mount in mounts:
        for field in ("hostPath", "containerPath"):
            _text(_mapping(mount, f"a mount of {where}", _MOUNT_FIELDS, mounts), field, where)


def _mapping(
    found: object, what: str, known: Collection[str], owner: object, key: str | None = None
) -> dict[str, Any]:
    """Return `found`, which `owner` holds, under `key` if that is a mapping too."""
    if not isinstance(found, dict):
        raise CdiSpecInvalid(f"{what}: no mapping", owner, key)
    if unknown := sorted(map(str, found.keys() - known)):
        raise CdiSpecInvalid(f"{what}: unknown field {unknown[0]!r}", found, unknown[0])
    return found


def _list(found: dict[str, Any], field: str, where: str) -> list[Any]:
    values = found.get(field)
    if values is not None and not isinstance(values, list):
        raise CdiSpecInvalid(f"{field} of {where}: no list", found, field)
    return values or []


def _text(found: dict[str, Any], field: str, where: str) -> str:
    value = found.get(field)
    if not isinstance(value, str) or not value:
        raise CdiSpecInvalid(f"{field} of {where}: missing, or no text", found, field)
    return value
