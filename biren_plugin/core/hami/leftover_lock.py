"""Whether a lock that is still on the node is left over: its pod needs it no more.

HAMi locks the node for a pod until its cards were allocated, five minutes at most, and binds no other
pod with cards meanwhile. Normally `hami/lock_keeper` releases the lock right after the pod's last answer,
without asking this module, which judges the locks for which that did not happen. Releasing a lock early can
only let two pods wait at once, which `promises` keeps apart; holding it late blocks the node.
"""

from biren_plugin.core.hami.annotations import FAILED, NODE, SUCCESS, Lock, annotation
from biren_plugin.core.hami.promises import Promise, promise_of
from biren_plugin.core.parse.api_shapes import Object
from biren_plugin.records import frozen


@frozen
class Release:
    """The lock is to be released."""

    why: str
    """`its pod was deleted`"""
    promise: Promise | None = None
    """Whose annotations are to be finished too."""
    phase: str = SUCCESS
    """HAMi's phase for that pod."""


@frozen
class Keep:
    """The lock stays for now."""

    why: str
    promise: Promise | None = None
    """What its pod was promised; None if another vendor's plugin has to release it."""


def fate_of(lock: Lock, pod: Object | None, node: str) -> Release | Keep:
    """What to do about `lock`, with its pod as the API server has it; None if there is no such pod."""
    if pod is None:
        return Release("its pod was deleted")
    if annotation(pod, NODE) not in ("", node):
        return Release("HAMi has chosen another node for its pod")
    if not annotation(pod, NODE) and not (pod.get("spec") or {}).get("nodeName"):
        # HAMi names the node in a pod before it locks the node for it.
        return Release("its pod was replaced by another of its name")
    promise = promise_of(pod, node)
    if promise is None:
        return Keep(f"{lock.namespace}/{lock.pod} has no Biren card on this node")
    if promise.failed:
        return Release("its pod has failed", promise, FAILED)
    if promise.admitted:
        return Release("the kubelet has admitted its pod", promise)
    if promise.phase == SUCCESS:
        return Release("its pod has its cards", promise)
    return Keep(f"{promise.name} waits for its cards", promise)


def fate_at_end(lock: Lock, pod: Object | None, node: str) -> Release | Keep:
    """The same for a daemon that stops: it leaves no lock of its pods behind."""
    fate = fate_of(lock, pod, node)
    if isinstance(fate, Keep) and fate.promise is not None:
        return Release("the device plugin stops")
    return fate
