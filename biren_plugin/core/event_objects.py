"""Kubernetes Events about the node: which verdicts become one, and its object.

Source: core/v1 of Kubernetes 1.36, and the kubelet's Events about nodes (namespace `default`, the node's name as
uid, which `kubectl describe node` asks for).
"""

import time
from collections.abc import Iterable
from typing import Any, Final

from biren_plugin.core.inventory_log import Remark
from biren_plugin.records import frozen, mutable

NAMESPACE: Final = "default"
"""Where Events about objects without a namespace are."""
COMPONENT: Final = "br-gpu-device-plugin"
_REASONS: Final = {
    "device_unhealthy": "BirenGpuUnhealthy",
    "device_warning": "BirenGpuWarning",
    "device_healthy": "BirenGpuHealthy",
}
"""The Event's reason, by the log's event. Reasons are stable."""
_LONGEST: Final = 1024
"""Characters of a message."""


@frozen
class NodeEvent:
    """A verdict that changed. Two that are equal are one Event with a count."""

    reason: str
    message: str
    bad: bool


@mutable
class NodeEventsState:
    """The Kubernetes Events about the node."""

    written: int = 0
    """Changes of verdicts that the API server took."""
    dropped: int = 0
    """Changes that were not written: refused, too many, or the API server was away for long."""
    trouble: str = ""
    """Why the last one was not written; empty if it was."""


def events_of(remarks: Iterable[Remark]) -> list[NodeEvent]:
    """Return the changed verdicts among the log's remarks."""
    return [
        NodeEvent(_REASONS[each.event], each.text[:_LONGEST], each.bad)
        for each in remarks
        if each.event in _REASONS
    ]


def new_event(event: NodeEvent, node: str, at: float) -> dict[str, Any]:
    """Return the object of an Event that happened once, at `at` seconds since 1970."""
    when = _timestamp(at)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        # As client-go names them: the object, and nanoseconds in hexadecimal.
        "metadata": {"name": f"{node[:220]}.{int(at * 1e9):x}", "namespace": NAMESPACE},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node},
        "type": "Warning" if event.bad else "Normal",
        "reason": event.reason,
        "message": event.message,
        "source": {"component": COMPONENT, "host": node},
        "reportingComponent": COMPONENT,
        "reportingInstance": node,
        "firstTimestamp": when,
        "lastTimestamp": when,
        "count": 1,
    }


def again(count: int, at: float) -> dict[str, Any]:
    """Return the patch for an Event that has happened `count` times, last at `at`."""
    return {"count": count, "lastTimestamp": _timestamp(at)}


def _timestamp(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
