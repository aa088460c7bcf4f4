"""The Kustomize base and its overlays, as kubectl renders them."""

import json
import os
import re
from pathlib import Path

import pytest

from tests.manifests.overlays import CHOICES, FIRST_VERSION
from tests.manifests.render import (
    container_of,
    kustomize,
    of_kind,
    overlay,
    pod_of,
    rendered,
)
from tests.manifests.schemas import complaints
from tests.manifests.tools import MANIFESTS, ROOT

RECENT = ["1.22", "1.23", "1.25", "1.28", "1.30", "1.32", "1.34", "1.35", "1.36", "1.37"]
OLD = ["1.19", "1.20"]


def test_each_overlay_has_a_choice_in_the_chart_and_a_component_to_combine() -> None:
    for folder in ("overlays", "components"):
        assert {each.name for each in (MANIFESTS / folder).iterdir()} == CHOICES.keys() - {"base"}


def test_the_documentation_lists_every_overlay() -> None:
    page = (ROOT / "docs/deployment.md").read_text()
    table = page.partition("## Choices")[2].partition("\n\n")[2].partition("\n\n")[0]
    first_cells = " ".join(line.split("|")[1] for line in table.splitlines())
    assert set(re.findall(r"`([^`]+)`", first_cells)) == CHOICES.keys() - {"base"}


@pytest.mark.parametrize(
    ("name", "version"),
    [
        (name, version)
        for name in CHOICES
        for version in RECENT
        if int(version.partition(".")[2]) >= FIRST_VERSION.get(name, 22)
    ],
)
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
