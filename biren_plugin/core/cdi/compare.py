"""How a CDI file differs from what the node needs, in lines for people."""

from collections.abc import Mapping, Sequence

from biren_plugin.core.cdi.spec import Spec
from biren_plugin.core.parse.vendor import CDI_KIND


def compare(path: str, found: Spec, needed: Spec | None) -> list[str]:
    """A line for each difference between two valid specs; `needed` is None if there is no card."""
    if found["kind"] != CDI_KIND:
        return [f"{path}: wrong kind {found['kind']}, pods ask for {CDI_KIND}"]
    there = _devices(found)
    wanted = _devices(needed) if needed is not None else {}
    lines = []
    if missing := [name for name in wanted if name not in there]:
        lines.append(f"{path}: stale, it lacks {', '.join(missing)}")
    if gone := [name for name in there if name not in wanted]:
        lines.append(f"{path}: stale, the node has no {', '.join(gone)}")
    if other := [name for name in wanted if name in there and there[name] != wanted[name]]:
        lines.append(f"{path}: stale, other nodes or mounts for {', '.join(other)}")
    if needed is not None and found.get("containerEdits") != needed.get("containerEdits"):
        lines.append(f"{path}: stale, other nodes or mounts for every container")
    return lines


def duplicates(path: str, needed: Spec, others: Mapping[str, Spec]) -> list[str]:
    """A line for each other file, by its path, that holds devices of the same name and kind."""
    lines = []
    for other, spec in others.items():
        names = _devices(needed).keys() & _devices(spec).keys()
        if spec["kind"] == CDI_KIND and names:
            lines.append(
                f"{other}: duplicate of {', '.join(_in_order(needed, names))} in {path}; remove one"
            )
    return lines


def _devices(spec: Spec) -> dict[str, Spec]:
    return {device["name"]: device["containerEdits"] for device in spec["devices"]}


def _in_order(spec: Spec, names: set[str]) -> Sequence[str]:
    return [name for name in _devices(spec) if name in names]
