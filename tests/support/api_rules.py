"""What an API server of Kubernetes 1.36 checks before it stores an object, as far as a driver meets it.

`tests/cluster_client/api_conversations.py` has requests for each rule, with the real server's answers.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

Object = dict[str, Any]
KINDS: Final = {
    "nodes": ("Node", "v1"),
    "pods": ("Pod", "v1"),
    "daemonsets": ("DaemonSet", "apps/v1"),
    "events": ("Event", "v1"),
    "resourceclaims": ("ResourceClaim", "resource.k8s.io/v1"),
    "resourceslices": ("ResourceSlice", "resource.k8s.io/v1"),
}
"""Kind and version by the name in a path."""
SELECTORS: Final = {
    "nodes": {"metadata.name", "spec.unschedulable"},
    "pods": {"metadata.name", "metadata.namespace", "spec.nodeName", "status.phase"},
    "resourceslices": {"metadata.name", "spec.driver", "spec.nodeName"},
}
"""The fields that a list or a watch can be limited by."""
_DEVICE: Final = {
    "name", "attributes", "capacity", "taints", "consumesCounters", "nodeName", "nodeSelector",
    "allNodes", "bindsToNode", "bindingConditions", "bindingFailureConditions",
    "allowMultipleAllocations", "nodeAllocatableResourceMappings",
}  # fmt: skip
_SPEC: Final = {
    "driver", "pool", "nodeName", "nodeSelector", "allNodes", "devices", "sharedCounters",
    "perDeviceNodeSelection",
}  # fmt: skip
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DOMAIN: Final = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
_KEY: Final = re.compile(rf"({_DOMAIN.pattern}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")
_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_IDENTIFIER: Final = re.compile(rf"({_DOMAIN.pattern}/)?[A-Za-z_][A-Za-z0-9_]{{0,31}}")
_NUMBER: Final = r"(0|[1-9]\d*)"
_VERSION: Final = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}([-+].*)?")
_EFFECTS: Final = ("None", "NoSchedule", "NoExecute")


def kind_of(path: str) -> tuple[str, str] | None:
    """The kind and version of the objects of a list, or of an object's path."""
    parts = path.split("/")
    return KINDS.get(parts[-1]) or KINDS.get(parts[-2])


def unknown_fields(found: Object) -> set[str]:
    """Fields that no slice has: refused if the client asks for strictness, else dropped."""
    if found.get("kind") != "ResourceSlice":
        return set()
    spec = found.get("spec", {})
    devices = spec.get("devices") or ()
    unknown: set[str] = spec.keys() - _SPEC
    return unknown.union(*(each.keys() - _DEVICE for each in devices))


def faults(found: Object, before: Object | None = None) -> list[str]:
    """The fields for which the server refuses to store an object, in place of `before`."""
    metadata = found.get("metadata", {})
    annotations = metadata.get("annotations") or {}
    if not all(isinstance(value, str) for value in annotations.values()):
        return ["patch"]
    wrong = ["metadata.annotations" for key in annotations if not _KEY.fullmatch(key.lower())]
    if (
        before is not None
        and metadata.get("uid", before["metadata"]["uid"]) != before["metadata"]["uid"]
    ):
        wrong.append("metadata.uid")
    if found.get("kind") == "ResourceSlice":
        name = metadata.get("name", "")
        wrong += [] if _DOMAIN.fullmatch(name) else ["metadata.name"]
        wrong += [f"spec{each}" for each in _spec_faults(found["spec"])]
        if before is not None:
            wrong += _immutable(found["spec"], before["spec"])
    return sorted(wrong)


def _immutable(spec: Object, before: Object) -> Iterator[str]:
    for field in ("driver", "nodeName"):
        if spec.get(field) != before.get(field):
            yield f"spec.{field}"
    if spec["pool"]["name"] != before["pool"]["name"]:
        yield "spec.pool.name"


def _spec_faults(spec: Object) -> Iterator[str]:
    if not _DOMAIN.fullmatch(spec["driver"]):
        yield ".driver"
    places = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")
    if sum(bool(spec.get(each)) for each in places) != 1:
        yield ""
    if spec["pool"]["resourceSliceCount"] < 1:
        yield ".pool.resourceSliceCount"
    if spec["pool"]["generation"] < 0:
        yield ".pool.generation"
    devices = spec.get("devices") or ()
    if len(devices) > (64 if any(each.get("taints") for each in devices) else 128):
        yield ".devices"
        return
    names: set[str] = set()
    for number, each in enumerate(devices):
        if each["name"] in names:
            yield f".devices[{number}]"
        if not _LABEL.fullmatch(each["name"]):
            yield f".devices[{number}].name"
        names.add(each["name"])
        yield from (f".devices[{number}]{fault}" for fault in _device_faults(each))


def _device_faults(device: Object) -> Iterator[str]:
    attributes = device.get("attributes") or {}
    if len(attributes) + len(device.get("capacity") or {}) > 32:
        yield ""
    for key, value in attributes.items():
        if not _IDENTIFIER.fullmatch(key):
            yield ".attributes"
        if len(value) != 1:
            yield f".attributes[{key}]"
        if len(value.get("string", "")) > 64:
            yield f".attributes[{key}].string"
        if "version" in value and not _VERSION.fullmatch(value["version"]):
            yield f".attributes[{key}].version"
    taints = device.get("taints") or ()
    if len(taints) > 16:
        yield ".taints"
        return
    for number, taint in enumerate(taints):
        if not _VALUE.fullmatch(taint.get("value", "")):
            yield f".taints[{number}].value"
        if taint.get("effect") not in _EFFECTS:
            yield f".taints[{number}].effect"
