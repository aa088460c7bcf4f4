"""Whether a daemon that stops leaves its node for good, or makes room for its successor."""

from biren_plugin.core.hami.annotations import Object


def daemonset_of(pod: Object) -> str | None:
    """The name of the DaemonSet that runs a pod; None for a pod that something else runs."""
    owners = (pod.get("metadata") or {}).get("ownerReferences") or ()
    return next((each["name"] for each in owners if each.get("kind") == "DaemonSet"), None)


def is_leaving(daemonset: Object | None, node: Object) -> bool:
    """Whether no pod of the DaemonSet follows on the node; None if there is no DaemonSet any more."""
    if daemonset is None or daemonset["metadata"].get("deletionTimestamp"):
        return True
    wanted = daemonset["spec"]["template"]["spec"].get("nodeSelector") or {}
    labels = node["metadata"].get("labels") or {}
    return not wanted.items() <= labels.items()
