"""The Kustomize base and its overlays, as kubectl renders them."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator, Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4, DRAFT202012

from tests.manifests.overlays import CHOICES
from tests.manifests.render import (
    Object,
    container_of,
    kustomize,
    of_kind,
    overlay,
    pod_of,
    rendered,
)
from tests.manifests.tools import FETCHED, MANIFESTS, ROOT, missing

RECENT = ["1.22", "1.23", "1.25", "1.28", "1.30", "1.32", "1.34", "1.35", "1.36", "1.37"]
OLD = ["1.19", "1.20"]
OTHERS = {"ServiceMonitor", "PrometheusRule", "ServiceAccount", "SecurityContextConstraints"}
"""Kinds of the Prometheus operator and OpenShift, whose schemas are not Kubernetes', and a bare account."""


def complaints(objects: list[Object], version: str) -> list[str]:
    """What the schemas of that Kubernetes say against the objects; unknown fields count."""
    folder = FETCHED / "schemas" / version
    if not folder.exists():
        missing(f"schemas of Kubernetes {version}")
    definitions = json.loads((folder / "_definitions.json").read_text())
    # Those of Kubernetes up to 1.24 are of draft 4, and call their definitions otherwise.
    modern = "$defs" in definitions
    draft, validator = (DRAFT202012, Draft202012Validator) if modern else (DRAFT4, Draft4Validator)
    registry: Registry[bool | Mapping[str, Any]] = Registry().with_resource(
        "/api/_definitions.json" if modern else "_definitions.json",
        Resource.from_contents(definitions, default_specification=draft),
    )
    found = []
    for each in objects:
        if each["kind"] not in OTHERS:
            group = each["apiVersion"].replace("/", "-")
            schema = json.loads((folder / f"{each['kind'].lower()}-{group}.json").read_text())
            errors = validator(schema, registry=registry).iter_errors(each)
            found += [error.message for error in errors]
    return found


def test_each_overlay_has_a_choice_in_the_chart_and_a_component_to_combine() -> None:
    for folder in ("overlays", "components"):
        assert {each.name for each in (MANIFESTS / folder).iterdir()} == CHOICES.keys() - {"base"}


def test_the_documentation_lists_every_overlay() -> None:
    page = (ROOT / "docs/deployment.md").read_text()
    table = page.partition("## Choices")[2].partition("\n\n")[2].partition("\n\n")[0]
    first_cells = " ".join(line.split("|")[1] for line in table.splitlines())
    assert set(re.findall(r"`([^`]+)`", first_cells)) == CHOICES.keys() - {"base"}


@pytest.mark.parametrize("version", RECENT)
@pytest.mark.parametrize("name", CHOICES)
def test_objects_are_valid_in_every_kubernetes_from_1_22(name: str, version: str) -> None:
    assert complaints(overlay(name), version) == []


@pytest.mark.parametrize("version", OLD)
def test_the_overlay_for_older_ones_is_valid_in_them_and_the_base_is_not(version: str) -> None:
    assert complaints(overlay("before-1.22"), version) == []
    assert "maxSurge" in " ".join(complaints(overlay("base"), version))


def test_schemas_notice_what_they_do_not_know() -> None:
    objects = overlay("base")
    container_of(objects)["imagePullPolice"] = "Always"
    assert "imagePullPolice" in " ".join(complaints(objects, "1.35"))


def test_rendered_files_are_what_their_sources_give() -> None:
    for path, text in rendered().items():
        assert path.read_text() == text, f"{path.name}: nox -s manifests -- --write"


def test_components_combine_with_an_image_of_ones_own(tmp_path: Path) -> None:
    names = ["cdi", "host-path", "management-library", "node-labels", "metrics", "k0s"]
    folder = tmp_path / "ours"
    folder.mkdir()
    base = os.path.relpath(MANIFESTS, folder)
    (folder / "kustomization.yaml").write_text(
        json.dumps(
            {
                "resources": [f"{base}/base"],
                "components": [f"{base}/components/{name}" for name in names],
                "images": [{"name": "br-gpu-device-plugin", "newName": "registry.example/ours"}],
            }
        )
    )
    objects = kustomize(folder)
    assert complaints(objects, "1.35") == []
    assert container_of(objects)["image"].startswith("registry.example/ours:")
    volumes = [each["name"] for each in pod_of(objects)["volumes"]]
    paths = [each["mountPath"] for each in container_of(objects)["volumeMounts"]]
    assert len(set(volumes)) == len(volumes)
    assert len(set(paths)) == len(paths)
    assert {each["name"] for each in container_of(objects)["volumeMounts"]} == set(volumes)


@pytest.mark.parametrize("name", CHOICES)
def test_no_overlay_moves_the_device_plugins_directory_which_no_kubelet_moves(name: str) -> None:
    volumes = {each["name"]: each for each in pod_of(overlay(name))["volumes"]}
    assert volumes["device-plugins"]["hostPath"]["path"] == "/var/lib/kubelet/device-plugins"


@pytest.mark.parametrize("name", ["host-path", "management-library"])
def test_the_driver_is_found_below_usr_and_opt(name: str) -> None:
    mounts = {each["mountPath"]: each for each in container_of(overlay(name))["volumeMounts"]}
    assert mounts["/host/usr"]["readOnly"] is mounts["/host/opt"]["readOnly"] is True


@pytest.mark.parametrize("name", CHOICES)
def test_no_probe_asks_a_process_that_still_starts(name: str) -> None:
    assert container_of(overlay(name))["startupProbe"]["initialDelaySeconds"] >= 5


def test_openshift_admits_what_the_pod_has_and_no_more() -> None:
    objects = overlay("openshift")
    account = of_kind(objects, "ServiceAccount")["metadata"]
    assert pod_of(objects)["serviceAccountName"] == account["name"]
    constraints = of_kind(objects, "SecurityContextConstraints")
    assert constraints["users"] == [
        f"system:serviceaccount:{account['namespace']}:{account['name']}"
    ]
    context = container_of(objects)["securityContext"]
    assert constraints["requiredDropCapabilities"] == context["capabilities"]["drop"]
    assert constraints["readOnlyRootFilesystem"] is context["readOnlyRootFilesystem"]
    assert constraints["runAsUser"] == {"type": "MustRunAs", "uid": context["runAsUser"]}
    allowed = {key for key, value in constraints.items() if key.startswith("allow") and value}
    assert allowed == {"allowHostDirVolumePlugin"}
    kinds = {kind for volume in pod_of(objects)["volumes"] for kind in volume} - {"name"}
    assert set(constraints["volumes"]) == kinds


def test_no_apply_can_merge_the_vendors_daemonset_with_ours() -> None:
    """An apply keeps fields that it does not set: the name and the selector must be others."""
    daemonset = of_kind(overlay("base"), "DaemonSet")
    assert daemonset["metadata"]["name"] != "biren-device-plugin-daemonset"
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    assert labels.get("name") != "biren-device-plugin", "the vendor's DaemonSet selects these pods"


@pytest.mark.parametrize("page", ["README.md", "docs/deployment.md"])
def test_the_documented_switch_deletes_the_vendors_daemonset_and_waits_for_its_pods(
    page: str,
) -> None:
    assert (
        "\nkubectl --namespace biren-gpu delete daemonset biren-device-plugin-daemonset "
        "--cascade=foreground\n"
    ) in (ROOT / page).read_text()


def test_ours_runs_where_the_vendors_ran() -> None:
    objects = overlay("base")
    pod = pod_of(objects)
    assert of_kind(objects, "DaemonSet")["metadata"]["namespace"] == "biren-gpu"
    assert pod["nodeSelector"] == {"birentech.com": "gpu"}
    assert pod["priorityClassName"] == "system-node-critical"
    assert {each["key"] for each in pod["tolerations"]} == {
        "birentech.com/gpu",
        "CriticalAddonsOnly",
    }
