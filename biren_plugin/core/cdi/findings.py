"""Faults of the node's CDI files: one set of rules for the daemon, its metric, `doctor` and `cdi check`.

1. One cause is one finding: the fault and its file, what to do about it, and which devices containers
   cannot get because of it.
2. A file that gives containers other nodes or mounts than they need is a finding; its devices are
   offered anyway, since its author may have a reason.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from biren_plugin.core.cdi.spec import Spec
from biren_plugin.core.parse.sysfs import by_number
from biren_plugin.core.parse.vendor import CDI_KIND

REPLACE: Final = (
    "correct it, or replace it: start the daemon with --overwrite-cdi-config, "
    "or run `br-gpu-device-plugin cdi generate --overwrite`"
)
"""What to do about a foreign file."""


@attrs.frozen
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


@attrs.frozen
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


@attrs.frozen
class CdiFile:
    """A CDI file as runtimes see it."""

    path: str
    spec: Spec | None = None
    """None: there is no file, or none that a runtime loads."""
    fault: str = ""
    """Why no runtime loads the file, with its path; empty if there is no reason."""


def findings_of(
    own: CdiFile, needed: Spec | None, others: Iterable[CdiFile] = ()
) -> tuple[Finding, ...]:
    """Yield each fault of the node's file, and of the `others` beside it.

    `needed` is what the file should hold; None for a node without a card.
    """
    wanted = _devices(needed) if needed is not None else {}
    every = frozenset(wanted)
    if own.fault:
        return (Finding(own.fault, REPLACE, every),)
    if own.spec is None:
        text = f"{own.path}: missing; `br-gpu-device-plugin cdi generate` writes it"
        return (Finding(text, "", every),) if wanted else ()
    if own.spec["kind"] != CDI_KIND:
        text = f"{own.path}: wrong kind {own.spec['kind']}, pods ask for {CDI_KIND}"
        return (Finding(text, REPLACE, every),)
    stale = _stale(own.path, own.spec, needed, wanted)
    return (*stale, *_duplicated(own.path, wanted, others))


def _stale(
    path: str, found: Spec, needed: Spec | None, wanted: Mapping[str, Spec]
) -> Iterable[Finding]:
    there = _devices(found)
    if missing := [name for name in wanted if name not in there]:
        text = f"{path}: stale, it lacks {', '.join(missing)}"
        yield Finding(text, REPLACE, frozenset(missing))
    if gone := [name for name in there if name not in wanted]:
        yield Finding(f"{path}: stale, the node has no {', '.join(gone)}", REPLACE)
    if other := [name for name in wanted if name in there and there[name] != wanted[name]]:
        yield Finding(f"{path}: stale, other nodes or mounts for {', '.join(other)}", REPLACE)
    if needed is not None and found.get("containerEdits") != needed.get("containerEdits"):
        yield Finding(f"{path}: stale, other nodes or mounts for every container", REPLACE)


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
