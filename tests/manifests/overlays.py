"""The choices that a deployment has: each as an overlay, and as values of the chart."""

from collections.abc import Mapping, Sequence
from typing import Final

CHOICES: Final[Mapping[str, Sequence[str]]] = {
    "base": (),
    "cdi": ("cdi=true",),
    "dra": ("offerBy=dra",),
    "hami": ("hami=true",),
    "kata": ("containerRuntime=kata",),
    "host-path": ("hostPath=true",),
    "management-library": ("managementLibrary=true",),
    "node-labels": ("nodeLabels=true",),
    "metrics": ("serviceMonitor=true",),
    "openshift": ("openshift=true",),
    "selinux-spc": ("seLinuxType=spc_t",),
    "talos": ("cdi=true", "cdiDir=/var/cdi/dynamic", "seLinuxType="),
    "k0s": ("kubeletRoot=/var/lib/k0s/kubelet",),
    "microk8s": ("kubeletRoot=/var/snap/microk8s/common/var/lib/kubelet",),
    "before-1.22": ("--kube-version=1.21",),
}
"""Values of the chart by overlay, or flags of `helm template`."""

FIRST_VERSION: Final[Mapping[str, int]] = {"dra": 34, "hami": 30}
"""The minor version of Kubernetes that an overlay needs, where that is not 1.22."""

UNPRIVILEGED: Final = [name for name in CHOICES if name != "management-library"]
