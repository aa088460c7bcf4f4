"""What kubectl and helm make of manifests/. `python -m tests.manifests.render` writes the rendered files.

They are committed, so that `kubectl apply --filename` needs nothing else; a test holds them to
their sources.
"""

import copy
import functools
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from tests.manifests.chart_readme import chart_readme
from tests.manifests.tools import MANIFESTS, run_tool

Object = dict[str, Any]
"""A Kubernetes object, as its YAML says it."""

NAMESPACE: Final = "biren-gpu"
DEFAULT: Final = MANIFESTS / "br-gpu-device-plugin.yaml"
ALERTS: Final = MANIFESTS / "monitoring/alerts.yaml"
CHART: Final = MANIFESTS / "chart"
PROMETHEUS_RULE: Final = MANIFESTS / "components/metrics/prometheusrule.yaml"

_RULE_HEAD: Final = """\
# Made of monitoring/alerts.yaml by `nox -s manifests -- --write`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: br-gpu-device-plugin
  namespace: biren-gpu
  labels:
    app.kubernetes.io/name: br-gpu-device-plugin
spec:
"""
_DEFAULT_HEAD: Final = """\
# Made of base/ by `nox -s manifests -- --write`; the reason of each line stands there.
"""


def read_objects(text: str) -> list[Object]:
    """The objects of a YAML stream."""
    return [each for each in YAML(typ="safe").load_all(io.StringIO(text)) if each]


def kustomize(folder: Path) -> list[Object]:
    """The objects of a kustomization."""
    return read_objects(run_tool("kubectl", "kustomize", str(folder)))


def overlay(name: str) -> list[Object]:
    """The objects of an overlay, or of the base; the caller's own."""
    return copy.deepcopy(_rendered_once(name))


@functools.cache
def _rendered_once(name: str) -> list[Object]:
    return kustomize(MANIFESTS / ("base" if name == "base" else f"overlays/{name}"))


def helm_template(*values: str) -> list[Object]:
    """The objects of the chart with `values`, each as in `--set`; what begins with `--` is a flag."""
    command = ["template", "biren", str(CHART), "--namespace", NAMESPACE]
    return read_objects(run_tool("helm", *command, *chart_flags(values)))


def chart_flags(values: Iterable[str]) -> list[str]:
    """The flags of helm that set `values`."""
    return [value if value.startswith("--") else f"--set={value}" for value in values]


def of_kind(objects: list[Object], kind: str) -> Object:
    """The one object of that kind."""
    [found] = [each for each in objects if each["kind"] == kind]
    return found


def pod_of(objects: list[Object]) -> Object:
    """The specification of the DaemonSet's pods."""
    pod: Object = of_kind(objects, "DaemonSet")["spec"]["template"]["spec"]
    return pod


def container_of(objects: list[Object]) -> Object:
    """The one container of the DaemonSet's pods."""
    [container] = pod_of(objects)["containers"]
    assert isinstance(container, dict)
    return container


def rendered() -> dict[Path, str]:
    """The files that are made of others, and what must be in them."""
    indented = "".join(
        f"  {line}" if line.strip() else line for line in ALERTS.read_text().splitlines(True)
    )
    base = run_tool("kubectl", "kustomize", str(MANIFESTS / "base"))
    return {
        PROMETHEUS_RULE: _RULE_HEAD + indented,
        DEFAULT: _DEFAULT_HEAD + base,
        # A chart may hold no link, and reads no file outside of it.
        CHART / "alerts.yaml": ALERTS.read_text(),
        CHART / "README.md": chart_readme((CHART / "values.yaml").read_text()),
    }


if __name__ == "__main__":
    for path, text in rendered().items():
        path.write_text(text)
