"""Faults of the node's CDI files: one set of rules for the daemon, its metric, `doctor` and `cdi check`.

1. One cause is one finding: the fault and its file, what to do about it, and which devices containers
   cannot get because of it.
2. A file that gives containers other nodes or mounts than they need is a finding; its devices are
   offered anyway, since its author may have a reason.
3. One broken rule makes the whole file invisible to a runtime, with all its devices, so only the first
   broken rule is reported, whoever wrote the file. Source: the CDI specification 1.1.0 and its reference
   library.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from biren_plugin.core.card_names import by_number
from biren_plugin.core.cdi.spec import Spec
from biren_plugin.core.parse.vendor import CDI_KIND
from biren_plugin.errors import CdiSpecInvalid
from biren_plugin.records import frozen

REPLACE: Final = (
    "correct it, or replace it: start the daemon with --overwrite-cdi-config, "
    "or run `br-gpu-device-plugin cdi generate --overwrite`"
)
"""What to do about a foreign file."""
REMOVE: Final = "correct it, or remove it: only a regular file is replaced"
"""What to do about a link, a directory or a pipe in the file's place."""


@frozen
class Finding:
    """One fault of the node's CDI files."""

    text: str
    """The fault, with the file's path."""
    cure: str = ""
    """What to do."""
    names: frozenset[str] = frozenset()
    """CDI devices, without the kind, that containers cannot get."""

    def __str__(self) -> str:
        return f"{self.text}; {self.cure}" if self.cure else self.text


@frozen
class OnDisk:
    """What the node's file holds: the owner's answer to requests."""

    answers: int = 0
    """The number of the last request that was handled."""
    spec: Spec | None = None
    """None: there is no file, or no runtime loads it."""
    findings: tuple[Finding, ...] = ()
    """Faults of the file; none: every container gets the requested devices."""

    @property
    def withheld(self) -> list[str]:
        """Return the CDI devices that containers cannot get, by number."""
        return sorted({name for each in self.findings for name in each.names}, key=by_number)

    def reason_for(self, name: str) -> str:
        """Return why containers cannot get the CDI device; empty if they can."""
        return next((str(each) for each in self.findings if name in each.names), "")


@frozen
class CdiFile:
    """A CDI file as runtimes see it."""

    path: str
    spec: Spec | None = None
    """None: there is no file, or none that a runtime loads."""
    fault: str = ""
    """Why no runtime loads the file, with its path; empty if there is no reason."""
    cure: str = REPLACE
    """What to do if it is not what the node needs."""


def findings_of(
    own: CdiFile, needed: Spec | None, others: Iterable[CdiFile] = ()
) -> tuple[Finding, ...]:
    """Yield each fault of the node's file, and of the `others` beside it.

    `needed` is what the file should hold; None for a node without a card.
    """
    wanted = _devices(needed) if needed is not None else {}
    every = frozenset(wanted)
    if own.fault:
        return (Finding(own.fault, own.cure, every),)
    if own.spec is None:
        text = f"{own.path}: missing; `br-gpu-device-plugin cdi generate` writes it"
        return (Finding(text, "", every),) if wanted else ()
    if own.spec["kind"] != CDI_KIND:
        text = f"{own.path}: wrong kind {own.spec['kind']}, pods ask for {CDI_KIND}"
        return (Finding(text, own.cure, every),)
    stale = _stale(own, own.spec, needed, wanted)
    return (*stale, *_duplicated(own.path, wanted, others))


def _stale(
    own: CdiFile, found: Spec, needed: Spec | None, wanted: Mapping[str, Spec]
) -> Iterable[Finding]:
    there = _devices(found)
    if missing := [name for name in wanted if name not in there]:
        text = f"{own.path}: stale, it lacks {', '.join(missing)}"
        yield Finding(text, own.cure, frozenset(missing))
    if gone := [name for name in there if name not in wanted]:
        yield Finding(f"{own.path}: stale, the node has no {', '.join(gone)}", own.cure)
    if other := [name for name in wanted if name in there and there[name] != wanted[name]]:
        yield Finding(f"{own.path}: stale, other nodes or mounts for {', '.join(other)}", own.cure)
    if needed is not None and found.get("containerEdits") != needed.get("containerEdits"):
        yield Finding(f"{own.path}: stale, other nodes or mounts for every container", own.cure)


def _duplicated(
    path: str, wanted: Mapping[str, Spec], others: Iterable[CdiFile]
) -> Iterable[Finding]:
    for other in others:
        if other.spec is None or other.spec["kind"] != CDI_KIND:
            continue
        there = _devices(other.spec)
        if twice := [name for name in wanted if name in there]:
            text = f"{other.path}: duplicate of {', '.join(twice)} in {path}; remove one"
            yield Finding(text, "", frozenset(twice))


def _devices(spec: Spec) -> dict[str, Spec]:
    return {device["name"]: device["containerEdits"] for device in spec["devices"]}


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
        raise CdiSpecInvalid(f"{field} of {where}: not a list", found, field)
    return values or []


def _text(found: dict[str, Any], field: str, where: str) -> str:
    value = found.get(field)
    if not isinstance(value, str) or not value:
        raise CdiSpecInvalid(f"{field} of {where}: missing, or not text", found, field)
    return value
