"""What is deployed for Dynamic Resource Allocation: rights, the admission policy, classes, paths."""

import json
import os
from pathlib import Path
from typing import Any, Final

import cel
import pytest

from biren_plugin.commands.doctor.dra_checks import EVENT_RIGHTS, RIGHTS
from biren_plugin.core.parse.splits import RESOURCE_OF_SPLIT
from biren_plugin.core.parse.vendor import DRA_DRIVER
from tests.manifests.overlays import FIRST_VERSION
from tests.manifests.render import (
    CHART,
    Object,
    container_of,
    helm_template,
    kustomize,
    of_kind,
    overlay,
    pod_of,
    read_objects,
)
from tests.manifests.schemas import complaints
from tests.manifests.tools import MANIFESTS, run_tool

CHARTS: Final = [
    ("biren", "biren-gpu", ()),
    ("other", "elsewhere", ()),
    ("other", "elsewhere", ("serviceAccountName=ours",)),
    ("biren", "biren-gpu", ("openshift=true",)),
]


def chart(release: str, namespace: str, *values: str) -> list[Object]:
    """The chart's objects for DRA under that name, in that namespace."""
    words = ["template", release, str(CHART), f"--namespace={namespace}", "--set=offerBy=dra"]
    return read_objects(run_tool("helm", *words, *(f"--set={each}" for each in values)))


def own_kustomization(folder: Path, **content: Any) -> list[Object]:
    """The objects of a kustomization of a user's, with `manifests/` in front of its paths."""
    folder.mkdir()
    base = os.path.relpath(MANIFESTS, folder)
    for key in ("resources", "components"):
        content[key] = [f"{base}/{each}" for each in content.get(key, ())]
    (folder / "kustomization.yaml").write_text(json.dumps(content))
    return kustomize(folder)


def account_of(objects: list[Object]) -> str:
    """The user name under which the DaemonSet's pods call the API server."""
    namespace = of_kind(objects, "DaemonSet")["metadata"]["namespace"]
    return f"system:serviceaccount:{namespace}:{pod_of(objects)['serviceAccountName']}"


def is_restricted(objects: list[Object], user: str) -> bool:
    """Whether the policy's condition selects the requests of that user."""
    [condition] = of_kind(objects, "ValidatingAdmissionPolicy")["spec"]["matchConditions"]
    context = cel.Context({"request": {"userInfo": {"username": user}}})
    return bool(cel.evaluate(condition["expression"], context))


def assert_the_account_is_the_daemonsets(objects: list[Object]) -> None:
    """The one account that has the rights is the pods' own, and the policy restricts it."""
    [subject] = of_kind(objects, "ClusterRoleBinding")["subjects"]
    named = f"system:serviceaccount:{subject['namespace']}:{subject['name']}"
    assert subject["kind"] == "ServiceAccount"
    assert account_of(objects) == named
    assert is_restricted(objects, named)
    assert not is_restricted(objects, "system:node:node-7")
    assert not is_restricted(objects, "system:serviceaccount:kube-system:generic-garbage-collector")
    binding = of_kind(objects, "ValidatingAdmissionPolicyBinding")["spec"]
    policy = of_kind(objects, "ValidatingAdmissionPolicy")
    assert binding == {
        "policyName": policy["metadata"]["name"],
        "validationActions": ["Deny"],
    }
    role = of_kind(objects, "ClusterRole")["metadata"]["name"]
    assert of_kind(objects, "ClusterRoleBinding")["roleRef"]["name"] == role


def test_the_policy_restricts_the_account_of_the_overlays_pods() -> None:
    assert_the_account_is_the_daemonsets(overlay("dra"))


@pytest.mark.parametrize(("release", "namespace", "values"), CHARTS)
def test_the_policy_restricts_the_account_of_the_charts_pods(
    release: str, namespace: str, values: tuple[str, ...]
) -> None:
    objects = chart(release, namespace, *values)
    assert_the_account_is_the_daemonsets(objects)
    created = {each["metadata"]["name"] for each in objects if each["kind"] == "ServiceAccount"}
    named = "serviceAccountName=ours" in values
    assert created == (set() if named else {"br-gpu-dra"}), "an account that is named exists"


def test_the_policy_restricts_the_account_in_another_namespace_too(tmp_path: Path) -> None:
    objects = own_kustomization(
        tmp_path / "ours", namespace="elsewhere", resources=["overlays/dra"]
    )
    assert account_of(objects) == "system:serviceaccount:elsewhere:br-gpu-dra"
    assert_the_account_is_the_daemonsets(objects)


def test_the_policy_covers_every_way_to_change_a_slice() -> None:
    spec = of_kind(overlay("dra"), "ValidatingAdmissionPolicy")["spec"]
    [rule] = spec["matchConstraints"]["resourceRules"]
    [granted] = [
        each for each in of_kind(overlay("dra"), "ClusterRole")["rules"]
        if each["resources"] == rule["resources"]
    ]  # fmt: skip
    writes = {each.upper() for each in granted["verbs"]} - {"GET", "LIST", "WATCH"}
    assert set(rule["operations"]) == writes
    # Every version that a server with resource.k8s.io/v1 can serve as well.
    assert set(rule["apiVersions"]) == {"v1", "v1beta2", "v1beta1"}
    assert spec["failurePolicy"] == "Fail"


def test_doctor_asks_for_each_right_and_no_other() -> None:
    rules = of_kind(overlay("dra"), "ClusterRole")["rules"]
    granted = {
        (verb, name) for rule in rules for name in rule["resources"] for verb in rule["verbs"]
    }
    assert granted == {*RIGHTS, *EVENT_RIGHTS}


def test_rights_are_the_verbs_that_the_driver_uses() -> None:
    assert of_kind(overlay("dra"), "ClusterRole")["rules"] == [
        {"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims"], "verbs": ["get"]},
        {
            "apiGroups": ["resource.k8s.io"],
            "resources": ["resourceslices"],
            "verbs": ["list", "watch", "create", "update", "delete"],
        },
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
    ]


def test_a_driver_that_hangs_is_restarted() -> None:
    """One event loop serves the kubelet's calls and the probe; a hanging driver's slices would stay."""
    for objects in (overlay("dra"), chart("biren", "biren-gpu")):
        probe = container_of(objects)["livenessProbe"]
        assert probe["httpGet"]["path"] == "/healthz"
        assert probe["periodSeconds"] * probe["failureThreshold"] <= 60


def test_each_resource_of_the_plugin_has_its_class() -> None:
    classes = {
        each["metadata"]["name"]: each["spec"]
        for each in overlay("dra")
        if each["kind"] == "DeviceClass"
    }
    names = {spec.get("extendedResourceName") for spec in classes.values()}
    assert names == {*RESOURCE_OF_SPLIT.values(), None}
    for name, spec in classes.items():
        kind = name.removesuffix(".birentech.com")
        [selector] = spec["selectors"]
        assert selector["cel"]["expression"] == (
            f'device.driver == "{DRA_DRIVER}" && device.attributes["{DRA_DRIVER}"].type == "{kind}"'
        )
        if "extendedResourceName" in spec:
            assert spec["extendedResourceName"] == f"birentech.com/{kind}"


@pytest.mark.parametrize(
    "root",
    [
        "/var/lib/kubelet",
        "/data/kubelet",
        "/var/lib/k0s/kubelet",
        "/var/snap/microk8s/common/var/lib/kubelet",
    ],
)
def test_the_drivers_directories_have_one_path_in_the_container_and_on_the_host(root: str) -> None:
    objects = helm_template("offerBy=dra", f"kubeletRoot={root}/")
    container = container_of(objects)
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    volumes = {each["name"]: each.get("hostPath", {}) for each in pod_of(objects)["volumes"]}
    for name, path in (
        ("plugin", f"{root}/plugins/{DRA_DRIVER}"),
        ("plugins-registry", f"{root}/plugins_registry"),
        ("claim-cdi", "/var/run/cdi"),
    ):
        assert mounts[name] == volumes[name]["path"] == path
    given = {each["name"]: each["value"] for each in container["env"]}
    assert given.get("BR_GPU_KUBELET_ROOT", "/var/lib/kubelet") == root


def test_openshift_admits_the_account_of_dra_and_its_token(tmp_path: Path) -> None:
    components = ["components/openshift", "components/dra"]
    combined = own_kustomization(tmp_path / "ours", resources=["base"], components=components)
    for objects in (combined, chart("biren", "biren-gpu", "openshift=true")):
        constraints = of_kind(objects, "SecurityContextConstraints")
        assert constraints["users"] == [account_of(objects)]
        assert "projected" in constraints["volumes"], "the volume of the token"


def test_a_kubernetes_without_the_api_does_not_know_the_objects() -> None:
    before = f"1.{FIRST_VERSION['dra'] - 2}"
    assert "DeviceClass of resource.k8s.io/v1 is unknown" in complaints(overlay("dra"), before)


def test_plugin_and_driver_side_by_side_share_no_node_and_no_pod() -> None:
    objects = kustomize(MANIFESTS / "migration-to-dra")
    assert complaints(objects, "1.36") == []
    assert len({(each["kind"], each["metadata"]["name"]) for each in objects}) == len(objects)
    daemonsets = {
        each["metadata"]["name"]: each["spec"] for each in objects if each["kind"] == "DaemonSet"
    }
    plugin, driver = daemonsets["br-gpu-device-plugin"], daemonsets["br-gpu-dra"]
    label = {"birentech.com/offer-by": "dra"}
    assert driver["template"]["spec"]["nodeSelector"] == {"birentech.com": "gpu", **label}
    [term] = plugin["template"]["spec"]["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [
        {"key": "birentech.com/offer-by", "operator": "NotIn", "values": ["dra"]}
    ]
    for one, other in ((plugin, driver), (driver, plugin)):
        assert one["selector"]["matchLabels"] == one["template"]["metadata"]["labels"]
        assert one["selector"]["matchLabels"] != other["template"]["metadata"]["labels"]
    assert driver["template"]["spec"]["serviceAccountName"] == "br-gpu-dra"
    assert plugin["template"]["spec"]["automountServiceAccountToken"] is False
