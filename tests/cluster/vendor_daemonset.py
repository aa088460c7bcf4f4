"""A stand-in for the vendor's deployment: its names, node label, account and writable mounts, with our daemon."""

from typing import Any, Final

from tests.cluster.deployment import NAMESPACE
from tests.manifests.image_archive import REPOSITORY

NAME: Final = "biren-device-plugin-daemonset"
ACCOUNT: Final = "device-plugin-sa"
ROLE: Final = "birentech-device-plugin"
Object = dict[str, Any]


def vendor_objects(sys_directory: str) -> list[Object]:
    """The objects that the vendor's manifest creates."""
    return [
        _object("v1", "ServiceAccount", ACCOUNT),
        _object("rbac.authorization.k8s.io/v1", "ClusterRole", ROLE, namespaced=False, rules=[]),
        _object(
            "rbac.authorization.k8s.io/v1", "ClusterRoleBinding", ROLE, namespaced=False,
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE},
            subjects=[{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}],
        ),
        _object("apps/v1", "DaemonSet", NAME, spec=_daemonset(sys_directory)),
    ]  # fmt: skip


def _daemonset(sys_directory: str) -> Object:
    places = {
        "dp": ("/var/lib/kubelet/device-plugins", "/var/lib/kubelet/device-plugins"),
        "sys": (sys_directory, "/sys"),
        "device": ("/dev", "/dev"),
        "cdi-config": ("/etc/cdi", "/etc/cdi"),
        "brml": ("/usr/lib", "/host/usr/lib"),
        "brsmi": ("/usr/bin", "/opt/birentech/bin"),
    }
    labels = {"name": "biren-device-plugin"}
    container = {
        "name": "k8s-device-plugin",
        "image": f"{REPOSITORY}:test",
        "imagePullPolicy": "IfNotPresent",
        "command": ["/root/k8s-device-plugin"],
        "args": ["--pulse", "300", "--container-runtime", "runc"],
        "env": [{"name": "LD_LIBRARY_PATH", "value": "/usr/lib"}],
        "securityContext": {"privileged": True},
        "volumeMounts": [{"name": key, "mountPath": there} for key, (_, there) in places.items()],
    }
    pod = {
        "nodeSelector": {"biren": "on"},
        "priorityClassName": "system-node-critical",
        "serviceAccountName": ACCOUNT,
        "containers": [container],
        "volumes": [{"name": key, "hostPath": {"path": here}} for key, (here, _) in places.items()],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    return {"selector": {"matchLabels": labels}, "template": template}


def _object(
    version: str, kind: str, name: str, *, namespaced: bool = True, **fields: object
) -> Object:
    metadata = {"name": name} | ({"namespace": NAMESPACE} if namespaced else {})
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}
