"""Deployments on the real node: every overlay, the chart, and the switch from the vendor's plugin."""

import re
import tarfile
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.deployment import IDENTITY, NAME, NAMESPACE, SOONER, Deployment
from tests.cluster.host import NodeHost
from tests.cluster.isolation import NODE_NAME
from tests.cluster.node import Node
from tests.cluster.pods import container, run_pod
from tests.cluster.processes import poll
from tests.cluster.vendor_daemonset import ACCOUNT, ROLE, vendor_objects
from tests.cluster.vendor_daemonset import NAME as VENDOR_NAME
from tests.manifests.overlays import CHOICES
from tests.manifests.render import container_of, overlay, pod_of
from tests.manifests.tools import ROOT

CARDS: Final = {"card_0", "card_1", "card_2", "card_3"}
SIMULATED: Final = {"mount of sys", "mount of dev"}
"""Rows of `doctor` that fail here: /sys is a directory of files, and /dev is a layer of the namespace."""
DOCTOR_ALSO: Final = {
    "host-path": {"driver files"},
    "k0s": {"pod resources"},
    "microk8s": {"pod resources"},
}
"""Further failing rows: the node has no files of the driver, and its kubelet has the default root."""
NOWHERE: Final = {"nowhere": "yes"}
"""A node selector."""


def documented_switch() -> tuple[str, str]:
    """The documented commands: those before our deployment, and those after it."""
    page = (ROOT / "docs/deployment.md").read_text()
    section = page.partition("## Switching from the vendor's plugin")[2].partition("\n## ")[0]
    before, after = re.findall(r"```sh\n(.*?)```", section, re.S)
    return before, after


def documented_kubectl(page: str) -> list[str]:
    """Return the commands of a page that begin with kubectl, and change nothing."""
    text = (ROOT / "docs" / page).read_text()
    found = re.findall(r"^(kubectl .*?)(?: +#.*)?$", text, re.M)
    found += re.findall(r"`(kubectl [^`]+ [^`]+)`", text)
    return [each for each in dict.fromkeys(found) if "--previous" not in each]


def test_the_base_rolls_out_answers_the_runbooks_commands_and_leaves_no_warning_event(
    deployment: Deployment, prepared: Node, tmp_path: Path
) -> None:
    deployment.apply_overlay("base")
    deployment.wait_until_rolled_out()
    prepared.view.wait_for(CARDS)
    (pod,) = deployment.pods()
    for command in (*documented_kubectl("runbook.md"), *documented_kubectl("operations.md")):
        typed = re.sub(r"\bNODE\b", NODE_NAME, re.sub(r"\bPOD\b", pod, command))
        # `doctor` warns of the simulated host.
        statuses = (0, 1, 2) if " doctor" in typed else (0,)
        deployment.run("sh", "-c", f"cd {tmp_path} && {typed}", statuses=statuses)
    with tarfile.open(tmp_path / "report.tar.gz") as report:
        assert "doctor.json" in {Path(name).name for name in report.getnames()}
    words = ("rollout", "restart", f"daemonset/{NAME}")
    deployment.run("kubectl", f"--namespace={NAMESPACE}", *words)
    deployment.wait_until_rolled_out()
    prepared.view.wait_for(CARDS)
    assert deployment.warnings() == []


@pytest.mark.time_limit(480)
def test_every_overlay_rolls_out_and_its_daemon_answers(
    deployment: Deployment, prepared: Node
) -> None:
    for name in CHOICES:
        if name == "dra":  # which offers no resource: test_deployment_dra
            continue
        deployment.apply_overlay(name, SOONER)
        deployment.wait_until_rolled_out()
        resources = deployment.ask("status")["resources"]
        if name == "kata":
            assert resources == [], "this node has no group for virtual machines"
            continue
        assert [each["registered"] for each in resources] == [True], name
        prepared.view.wait_for(CARDS)
        assert deployment.failing_checks() - SIMULATED == DOCTOR_ALSO.get(name, set()), name
        if name == "hami":
            poll(lambda: deployment.ask("status")["hami"]["registered"], "the report to HAMi", 15.0)


def test_the_chart_rolls_out_and_leaves_no_warning_event(
    deployment: Deployment, prepared: Node
) -> None:
    notes = deployment.install_chart("cdi=true", "cdiDir=/run/cdi")
    deployment.wait_until_rolled_out()
    prepared.view.wait_for(CARDS)
    assert deployment.failing_checks() <= SIMULATED
    assert run_pod(prepared.api, "user", container(gpu=1))["main"].cards in CARDS
    assert deployment.warnings() == []
    assert "pod-security" not in notes, "the namespace has the label"


@pytest.mark.parametrize(
    ("theirs", "ours"), [("create", "apply"), ("apply", "helm"), ("helm", "helm")]
)
def test_the_documented_switch_leaves_nothing_of_the_vendors_and_pods_keep_their_cards(
    deployment: Deployment, prepared: Node, host: NodeHost, theirs: str, ours: str
) -> None:
    deployment.create(theirs, vendor_objects(str(host.root / "sys")))
    deployment.wait_until_rolled_out(VENDOR_NAME)
    prepared.view.wait_for(CARDS)
    run_pod(prepared.api, "before", container(gpu=1))
    held = prepared.view.held()["before/main"]

    before, after = documented_switch()
    deployment.run("sh", "-e", "-c", before)
    assert deployment.pods() == [], "the command waits for the end of the pods"
    if ours == "helm":
        notes = deployment.install_chart()
        assert VENDOR_NAME not in notes
    else:
        deployment.apply_overlay("base")
    deployment.wait_until_rolled_out()
    deployment.run("sh", "-e", "-c", after)

    assert list(deployment.daemonsets()) == [NAME]
    pod = deployment.daemonsets()[NAME]["spec"]["template"]["spec"]
    rendered = overlay("base")
    assert pod["nodeSelector"] == pod_of(rendered)["nodeSelector"]
    assert {each["name"] for each in pod["volumes"]} == {
        each["name"] for each in pod_of(rendered)["volumes"]
    }
    assert pod["containers"][0]["env"] == container_of(rendered)["env"]
    assert not prepared.api.exists(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}")
    assert not prepared.api.exists(f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{ROLE}")

    prepared.view.wait_for(CARDS)
    assert prepared.view.held()["before/main"] == held
    run_pod(prepared.api, "after", container(gpu=3))
    assert set(prepared.view.held()["after/main"]) == CARDS - set(held)


def test_an_apply_beside_the_vendors_daemonset_merges_nothing_and_the_chart_warns(
    deployment: Deployment, host: NodeHost
) -> None:
    vendors = vendor_objects(str(host.root / "sys"))
    vendors[-1]["spec"]["template"]["spec"]["nodeSelector"] = NOWHERE
    deployment.create("create", vendors)
    before = deployment.daemonsets()[VENDOR_NAME]["spec"]
    deployment.apply_overlay(
        "base", {"spec": {"template": {"spec": {"nodeSelector": NOWHERE}}}, **IDENTITY}
    )
    assert deployment.daemonsets()[VENDOR_NAME]["spec"] == before
    ours = deployment.daemonsets()[NAME]["spec"]["template"]["spec"]
    assert {each["name"] for each in ours["volumes"]} == {
        each["name"] for each in pod_of(overlay("base"))["volumes"]
    }
    deployment.run("kubectl", f"--namespace={NAMESPACE}", "delete", "daemonset", NAME)
    notes = deployment.install_chart("nodeSelector.nowhere=yes")
    assert f"delete daemonset {VENDOR_NAME} --cascade=foreground" in notes
