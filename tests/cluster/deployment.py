"""Deploys our manifests with kubectl and helm, with the simulated host's /sys."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.cluster.api import PATHS
from tests.cluster.isolation import NODE_NAME
from tests.cluster.node import Node
from tests.cluster.processes import poll
from tests.manifests.image_archive import REPOSITORY, archive, build_lock
from tests.manifests.tools import FETCHED, MANIFESTS, find_tool, missing

NAMESPACE: Final = "biren-gpu"
NAME: Final = "br-gpu-device-plugin"
_ROLLED: Final = "--timeout=60s"
_GONE: Final = 40.0
"""Seconds, more than a pod's grace period."""
Object = dict[str, Any]


IDENTITY: Final = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": NAME},
}
"""The identity of our DaemonSet, for patches."""
SOON: Final = {
    "name": "k8s-device-plugin",
    "startupProbe": {"initialDelaySeconds": 1, "periodSeconds": 1},
}
"""A patch of the container, so that a pod is Ready sooner than with the published probe."""
SOONER: Final = {"spec": {"template": {"spec": {"containers": [SOON]}}}, **IDENTITY}
KINDS: Final = {
    "ServiceMonitor": ("monitoring.coreos.com", "Namespaced"),
    "PrometheusRule": ("monitoring.coreos.com", "Namespaced"),
    "SecurityContextConstraints": ("security.openshift.io", "Cluster"),
}
"""Kinds that other projects define; here they accept any content."""
NODE_LABELS: Final = {"birentech.com": "gpu", "biren": "on"}


def prepare(node: Node) -> None:
    """Prepares the node: our image, its labels, and the definitions of kinds that our objects need."""
    for tool in ("kubectl", "helm"):
        find_tool(tool)
    with build_lock():
        is_built = archive().exists()
    if not is_built:
        missing("the image of these sources (python -m tests.manifests.image_archive)")
    node.containerd.ctr("images", "import", "--local", str(archive()))
    node.api.patch(f"/api/v1/nodes/{NODE_NAME}", {"metadata": {"labels": NODE_LABELS}})
    # As the vendor's manifest creates it, without a label.
    if not node.api.exists(f"/api/v1/namespaces/{NAMESPACE}"):
        node.api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    for kind, (group, scope) in KINDS.items():
        definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        node.api.create(definitions, custom_kind(kind, group, scope))


def custom_kind(kind: str, group: str, scope: str) -> Object:
    """The definition of a kind without a schema of its own."""
    plural = f"{kind.lower().removesuffix('s')}s"
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything},
    }  # fmt: skip
    names = {"kind": kind, "plural": plural, "singular": kind.lower()}
    return {
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": scope, "names": names, "versions": [version]},
    }


class Deployment:
    """Deploys to the node; `scratch` holds the files that kubectl and helm read."""

    def __init__(self, node: Node, scratch: Path, sys_directory: Path) -> None:
        self._node = node
        self._scratch = scratch
        self._sys = sys_directory
        self.environment = {
            **os.environ,
            "KUBECONFIG": str(node.kubeconfig),
            "HOME": str(scratch),  # helm's cache
            "PATH": os.pathsep.join([str(FETCHED / "bin"), os.environ["PATH"]]),
        }

    def run(self, *command: str, statuses: Sequence[int] = (0,)) -> str:
        """The standard output of a command; an AssertionError if the command fails."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode in statuses, f"{command}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def apply_overlay(self, name: str, *patches: Object) -> None:
        """Applies an overlay, or another directory of manifests/ by its path."""
        target = {"kind": "DaemonSet"}
        source = name if (MANIFESTS / name).exists() else f"overlays/{name}"
        kustomization = {
            "resources": [os.path.relpath(MANIFESTS / source, self._scratch)],
            "images": [{"name": NAME, "newName": REPOSITORY, "newTag": "test"}],
            "patches": [
                {"target": target, "patch": json.dumps(each)} for each in (self._host(), *patches)
            ],
        }
        (self._scratch / "kustomization.yaml").write_text(json.dumps(kustomization))
        self.run("kubectl", "apply", "--kustomize", str(self._scratch))

    def install_chart(self, *values: str) -> str:
        """Installs the chart as the documentation says; the notes that helm prints."""
        chart = self._scratch / "chart"
        shutil.copytree(MANIFESTS / "chart", chart, dirs_exist_ok=True)
        template = chart / "templates/daemonset.yaml"
        template.write_text(template.read_text().replace("path: /sys\n", f"path: {self._sys}\n"))
        namespace = str(MANIFESTS / "base/namespace.yaml")
        self.run("kubectl", "apply", "--filename", namespace)
        values = (f"image.repository={REPOSITORY}", "image.tag=test", *values)
        return self.run(
            "helm", "upgrade", "--install", "biren", str(chart), f"--namespace={NAMESPACE}",
            *(f"--set={each}" for each in values),
        )  # fmt: skip

    def create(self, how: str, objects: list[Object]) -> None:
        """Creates objects by `kubectl create`, `kubectl apply` or a chart of their own."""
        if how == "helm":
            templates = self._scratch / "other/templates"
            templates.mkdir(parents=True)
            chart = {"apiVersion": "v2", "name": "other", "version": "1.0.0"}
            (templates.parent / "Chart.yaml").write_text(json.dumps(chart))
            for number, each in enumerate(objects):
                (templates / f"{number}.yaml").write_text(json.dumps(each))
            self.run("helm", "install", "other", str(templates.parent), f"--namespace={NAMESPACE}")
        else:
            file = self._scratch / "other.json"
            file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
            self.run("kubectl", how, "--filename", str(file))

    def wait_until_rolled_out(self, name: str = NAME) -> None:
        """Waits until each pod is Ready and has the newest template, and no other pod is left."""
        words = ("rollout", "status", f"daemonset/{name}", _ROLLED)
        self.run("kubectl", f"--namespace={NAMESPACE}", *words)
        poll(lambda: len(self.pods()) == 1, "one pod", _GONE, self.pods)

    def ask(self, *words: str, statuses: Sequence[int] = (0,)) -> Any:
        """The JSON document that our command, run in the daemon's container, prints."""
        place = (f"--namespace={NAMESPACE}", "exec", f"daemonset/{NAME}", "--")
        command = ("kubectl", *place, "br-gpu-device-plugin", *words, "--json")
        return json.loads(self.run(*command, statuses=statuses))

    def failing_checks(self) -> set[str]:
        """The names of the rows of `doctor` with a warning or a failure."""
        document = self.ask("doctor", statuses=(0, 1, 2))
        return {
            each["name"] for each in document["checks"] if each["result"] in ("warning", "failure")
        }

    def warnings(self) -> list[str]:
        """The Warning events that were left in the namespace.

        Without those of a readiness probe after the kubelet has ended the pod: it goes on probing while it
        removes the pod's network, so now and then an end leaves one, whatever the pod does.
        """
        items = self._node.api.get(f"/api/v1/namespaces/{NAMESPACE}/events")["items"]
        ended = {
            each["involvedObject"]["uid"]: each["firstTimestamp"]
            for each in items
            if each["reason"] == "Killing"
        }
        return [
            f"{each['reason']}: {each['message']}"
            for each in items
            if each["type"] == "Warning" and not _probes_an_ended_pod(each, ended)
        ]

    def daemonsets(self) -> dict[str, Object]:
        """The DaemonSets of the namespace by name."""
        items = self._node.api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets")["items"]
        return {each["metadata"]["name"]: each for each in items}

    def pods(self) -> list[str]:
        """The names of the namespace's pods."""
        items = self._node.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
        return [each["metadata"]["name"] for each in items]

    def remove(self) -> None:
        """Deletes everything that was deployed, except for the namespace, whose deletion takes ten seconds."""
        kinds = "daemonsets,services,serviceaccounts,secrets,servicemonitors,prometheusrules"
        # Not in the foreground: the garbage collector may miss an account that was created a moment ago.
        self.run("kubectl", f"--namespace={NAMESPACE}", "delete", kinds, "--all")
        poll(lambda: not self.pods(), "the end of the DaemonSets' pods", _GONE, self.pods)
        everywhere = (
            "validatingadmissionpolicybindings,validatingadmissionpolicies,clusterrolebindings,"
            "clusterroles,deviceclasses"
        )
        self.run("kubectl", "delete", everywhere, f"--selector=app.kubernetes.io/name={NAME}")
        self._node.api.delete(PATHS["ResourceSlice"])
        self._node.api.delete(f"/api/v1/namespaces/{NAMESPACE}/events")

    def _host(self) -> Object:
        sys = {"name": "sys", "hostPath": {"path": str(self._sys)}}
        return {"spec": {"template": {"spec": {"volumes": [sys]}}}, **IDENTITY}


def _probes_an_ended_pod(event: Object, ended: Mapping[str, str]) -> bool:
    """Whether the event is of a readiness probe that failed after its pod had ended; `ended`: when, by uid."""
    pod = event["involvedObject"].get("uid")
    is_of_probe = event["message"].startswith("Readiness probe failed")
    return is_of_probe and pod in ended and event["firstTimestamp"] >= ended[pod]
