"""What is deployed for HAMi: rights, and the policy that keeps a daemon to its own node."""

from pathlib import Path

import pytest

from tests.manifests.render import container_of, helm_template, of_kind, overlay, pod_of
from tests.manifests.test_dra import account_of, is_restricted, own_kustomization


def test_rights_are_the_verbs_that_the_mode_uses() -> None:
    assert of_kind(overlay("hami"), "ClusterRole")["rules"] == [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "patch"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
    ]


def test_the_plugin_may_see_its_own_daemonset() -> None:
    assert of_kind(overlay("hami"), "Role")["rules"] == [
        {
            "apiGroups": ["apps"],
            "resources": ["daemonsets"],
            "resourceNames": [of_kind(overlay("hami"), "DaemonSet")["metadata"]["name"]],
            "verbs": ["get"],
        }
    ]


def test_the_policy_covers_what_the_rights_can_change() -> None:
    spec = of_kind(overlay("hami"), "ValidatingAdmissionPolicy")["spec"]
    [rule] = spec["matchConstraints"]["resourceRules"]
    assert rule["operations"] == ["UPDATE"], "a patch is one"
    assert rule["resources"] == ["nodes", "pods"]
    assert spec["failurePolicy"] == "Fail"


@pytest.mark.parametrize("values", [(), ("serviceAccountName=ours",), ("openshift=true",)])
def test_the_account_with_the_rights_is_the_pods_own_and_restricted(
    values: tuple[str, ...],
) -> None:
    for objects in (overlay("hami"), helm_template("hami=true", *values)):
        [subject] = of_kind(objects, "ClusterRoleBinding")["subjects"]
        named = f"system:serviceaccount:{subject['namespace']}:{subject['name']}"
        assert account_of(objects) == named
        assert of_kind(objects, "RoleBinding")["subjects"] == [subject]
        assert is_restricted(objects, named)
        assert not is_restricted(objects, "system:node:n1")
        assert pod_of(objects)["automountServiceAccountToken"] is True
    created = {each["metadata"]["name"] for each in objects if each["kind"] == "ServiceAccount"}
    assert created == (set() if "serviceAccountName=ours" in values else {"br-gpu-hami"})


def test_the_node_is_named_where_tokens_do_not_name_it() -> None:
    objects = helm_template("hami=true", "--kube-version=1.29")
    assert not [each for each in objects if "AdmissionPolicy" in each["kind"]]
    [name] = [
        each for each in container_of(objects)["env"] if each["name"] == "BR_GPU_NODE_NAME"
    ]  # fmt: skip
    assert name["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}


def test_openshift_admits_the_account_and_its_token(tmp_path: Path) -> None:
    components = ["components/openshift", "components/hami"]
    combined = own_kustomization(tmp_path / "ours", resources=["base"], components=components)
    for objects in (combined, helm_template("hami=true", "openshift=true")):
        constraints = of_kind(objects, "SecurityContextConstraints")
        assert constraints["users"] == [account_of(objects)]
        assert "projected" in constraints["volumes"], "the volume of the token"
