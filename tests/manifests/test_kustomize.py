"""The Kustomize base and its overlays, as kubectl renders them."""

import json
import os
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
from tests.manifests.tools import FETCHED, MANIFESTS, missing

RECENT = ["1.22", "1.23", "1.25", "1.28", "1.30", "1.32", "1.34", "1.35", "1.36", "1.37"]
OLD = ["1.19", "1.20"]
OPERATORS = {"ServiceMonitor", "PrometheusRule"}
"""Kinds of the Prometheus operator, whose schemas are not Kubernetes'."""


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
        if each["kind"] not in OPERATORS:
            group = each["apiVersion"].replace("/", "-")
            schema = json.loads((folder / f"{each['kind'].lower()}-{group}.json").read_text())
            errors = validator(schema, registry=registry).iter_errors(each)
            found += [error.message for error in errors]
    return found


def test_each_overlay_has_a_choice_in_the_chart_and_a_component_to_combine() -> None:
    for folder in ("overlays", "components"):
        assert {each.name for each in (MANIFESTS / folder).iterdir()} == CHOICES.keys() - {"base"}


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


def test_one_apply_turns_the_vendors_daemonset_into_ours() -> None:
    """As the vendor's manifest has them; the selector of a DaemonSet cannot be changed."""
    daemonset = of_kind(overlay("base"), "DaemonSet")
    assert daemonset["metadata"]["name"] == "biren-device-plugin-daemonset"
    assert daemonset["metadata"]["namespace"] == "biren-gpu"
    assert daemonset["spec"]["selector"] == {"matchLabels": {"name": "biren-device-plugin"}}
    pod = daemonset["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"birentech.com": "gpu"}
    assert pod["priorityClassName"] == "system-node-critical"
    assert {each["key"] for each in pod["tolerations"]} == {
        "birentech.com/gpu",
        "CriticalAddonsOnly",
    }
    assert container_of([daemonset])["name"] == "k8s-device-plugin"
