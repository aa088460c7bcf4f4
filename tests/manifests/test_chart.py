"""The Helm chart: the same objects as the overlays, and values that are checked."""

import pytest

from tests.manifests.overlays import CHOICES
from tests.manifests.render import Object, container_of, helm_template, overlay, pod_of
from tests.manifests.tools import MANIFESTS, run_tool, try_tool

CHART = str(MANIFESTS / "chart")


def by_kind(objects: list[Object]) -> dict[str, Object]:
    """The objects that both make (with Helm, the namespace is the caller's), volumes in one order."""
    for volumes in (pod_of(objects)["volumes"], container_of(objects)["volumeMounts"]):
        volumes.sort(key=lambda each: (each["name"], each.get("mountPath")))
    return {each["kind"]: each for each in objects if each["kind"] != "Namespace"}


@pytest.mark.parametrize(("name", "values"), CHOICES.items())
def test_the_chart_gives_the_objects_of_the_overlay(name: str, values: tuple[str, ...]) -> None:
    assert by_kind(helm_template(*values)) == by_kind(overlay(name))


@pytest.mark.parametrize(
    "values", [[], *([f"--set={each}" for each in v] for v in CHOICES.values())]
)
def test_the_chart_is_clean_for_helms_linter(values: list[str]) -> None:
    assert "0 chart(s) failed" in run_tool("helm", "lint", "--strict", CHART, *values)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("cdl=true", "cdl"),
        ("cdi=maybe", "cdi"),
        ("containerRuntime=docker", "containerRuntime"),
        ("kubeletRoot=var/lib/kubelet", "kubeletRoot"),
        ("image.tags=1", "tags"),
        ("extraArgs={pulse}", "extraArgs"),
    ],
)
def test_a_wrong_value_is_named(value: str, complaint: str) -> None:
    done = try_tool("helm", "template", "biren", CHART, "--set", value)
    assert done.returncode != 0
    assert complaint in done.stderr


def test_values_that_are_no_overlay_reach_the_pod() -> None:
    objects = helm_template(
        "image.repository=registry.example/plugin",
        "image.tag=1.2.3",
        "imagePullSecrets[0].name=ours",
        "logLevel=debug",
        "extraArgs={--health-mode=observe}",
    )
    container = container_of(objects)
    assert container["image"] == "registry.example/plugin:1.2.3"
    assert container["args"][-2:] == ["--log-level=debug", "--health-mode=observe"]
    assert pod_of(objects)["imagePullSecrets"] == [{"name": "ours"}]
