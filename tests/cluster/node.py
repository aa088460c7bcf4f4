"""A cluster of one node, of the real programs, in the namespaces that `isolation` made."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.cluster.api import ADMIN_TOKEN, PORT, Api
from tests.cluster.containerd import Containerd
from tests.cluster.isolation import CGROUP_VARIABLE, NODE_ADDRESS, NODE_NAME
from tests.cluster.kubelet_view import KubeletView
from tests.cluster.processes import Processes

KUBELET_ROOT: Final = Path("/var/lib/kubelet")
_LISTED: Final = '"SyncLoop ADD" source="api"'
"""What the kubelet logs when the API server has told it which pods the node has, be it none."""
_ETCD: Final = "http://127.0.0.1:12379"
_ETCD_PEER: Final = "http://127.0.0.1:12380"


class Node:
    """Starts and ends the cluster's parts; `api` and `view` ask the API server and the kubelet."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self.processes = Processes(state / "logs")
        self.containerd = Containerd(state, self.processes)
        self.api = Api()
        self.view = KubeletView()
        self.kubeconfig = state / "kubeconfig"

    def start(self) -> None:
        """Starts every part and waits until pods can run."""
        self.kubeconfig.write_text(json.dumps(_kubeconfig()))
        self.processes.start(
            "etcd", "etcd", f"--data-dir={self._state / 'etcd'}", "--unsafe-no-fsync",
            f"--listen-client-urls={_ETCD}", f"--advertise-client-urls={_ETCD}",
            f"--listen-peer-urls={_ETCD_PEER}", f"--initial-advertise-peer-urls={_ETCD_PEER}",
            f"--initial-cluster=default={_ETCD_PEER}",
        )  # fmt: skip
        key = ["openssl", "genrsa", "-out", str(self._state / "accounts.key"), "2048"]
        subprocess.run(key, check=True, capture_output=True)
        self.start_api_server()
        self.containerd.start()
        self.containerd.import_image()
        self.wait_for_api_server()
        self._start_controllers()
        self.start_kubelet()
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self.processes.wait_until("the service account", lambda: self.api.exists(account))

    def start_kubelet(self, **configuration: Any) -> None:
        """Starts the kubelet, with changes to its configuration; waits until the node is ready.

        A pod that is in the kubelet's first list of pods is admitted while the cards of pods that are
        gone still count: tests create theirs after that.
        """
        config = self._state / "kubelet.json"
        config.write_text(
            json.dumps(_kubelet_configuration(self.containerd.socket) | configuration)
        )
        self.processes.start(
            "kubelet", "kubelet", f"--config={config}", f"--kubeconfig={self.kubeconfig}",
            f"--hostname-override={NODE_NAME}", f"--node-ip={NODE_ADDRESS}", "--v=2",
        )  # fmt: skip
        self.processes.wait_until("the kubelet", self.view.answers)
        self.processes.wait_until("the node", self._ready)
        self.processes.wait_until(
            "the kubelet's first list of pods", lambda: self.processes.has_said("kubelet", _LISTED)
        )

    def stop_kubelet(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends the kubelet; containers keep running."""
        self.processes.end("kubelet", number)

    def restart_kubelet(self, **configuration: Any) -> None:
        """Restarts the kubelet, with changes to its configuration."""
        self.stop_kubelet()
        self.start_kubelet(**configuration)

    def restart_clients(self) -> None:
        """Restarts the parts that ask the API server, and with them their waits, of up to 60 s after an outage."""
        for name in ("kube-scheduler", "kube-controller-manager"):
            self.processes.end(name)
        self._start_controllers()
        self.restart_kubelet()

    def status(self) -> Any:
        """The status of the node object, which the kubelet updates every second."""
        return self.api.get(f"/api/v1/nodes/{NODE_NAME}")["status"]

    @property
    def authority(self) -> Path:
        """The certificate of the API server, which it signed itself."""
        return self._state / "certificates/apiserver.crt"

    def start_api_server(self) -> None:
        """Starts the API server, which `processes` has as kube-apiserver."""
        tokens = self._state / "tokens.csv"
        tokens.write_text(f'{ADMIN_TOKEN},admin,admin,"system:masters"\n')
        key = str(self._state / "accounts.key")
        self.processes.start(
            "kube-apiserver", "kube-apiserver", f"--etcd-servers={_ETCD}",
            f"--secure-port={PORT}", "--bind-address=0.0.0.0", f"--advertise-address={NODE_ADDRESS}",
            f"--cert-dir={self._state / 'certificates'}", f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.96.0.0/24", "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",
        )  # fmt: skip

    def wait_for_api_server(self) -> None:
        """Waits until the API server is ready."""
        self.processes.wait_until("the API server", lambda: self.api.exists("/readyz"))

    def _start_controllers(self) -> None:
        flags = [f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--secure-port=0"]
        self.processes.start(
            "kube-controller-manager", "kube-controller-manager", *flags,
            f"--service-account-private-key-file={self._state / 'accounts.key'}",
            f"--root-ca-file={self.authority}",
        )  # fmt: skip
        delegated = [
            f"--{each}-kubeconfig={self.kubeconfig}" for each in ("authentication", "authorization")
        ]
        self.processes.start("kube-scheduler", "kube-scheduler", *flags, *delegated)

    def _ready(self) -> bool:
        if not self.api.exists(f"/api/v1/nodes/{NODE_NAME}"):
            return False
        conditions = self.status().get("conditions", [])
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _kubelet_configuration(containerd: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        # No other process reaches it: the network is the node's own.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{containerd}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": os.environ[CGROUP_VARIABLE],
        "failCgroupV1": False,
        "failSwapOn": False,
        "evictionHard": {"memory.available": "50Mi"},
        "makeIPTablesUtilChains": False,
        "nodeStatusUpdateFrequency": "1s",
        "clusterDNS": ["10.96.0.10"],  # without one, each pod leaves a warning event
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
    }


def _kubeconfig() -> dict[str, Any]:
    cluster = {"server": f"https://127.0.0.1:{PORT}", "insecure-skip-tls-verify": True}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "node", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": ADMIN_TOKEN}}],
        "contexts": [{"name": "node", "context": {"cluster": "node", "user": "admin"}}],
        "current-context": "node",
    }
