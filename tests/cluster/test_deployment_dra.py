"""Deployments for DRA on the real node: a roll-out, an update, and switches to and from DRA with running pods."""

import json
import os
from pathlib import Path
from typing import Final

from tests.cluster.deployment import NAME, NAMESPACE, SOONER, Deployment
from tests.cluster.dra import DraNode, wait_until_no_plugin_is_counted, wait_until_plugin_is_counted
from tests.cluster.host import NodeHost
from tests.cluster.isolation import NODE_NAME
from tests.cluster.node import Node
from tests.cluster.pods import container, run_pod
from tests.manifests.tools import MANIFESTS, ROOT

SIMULATED: Final = {"mount of sys", "mount of dev"}
"""Rows of `doctor` that fail here: /sys is a directory of files, and /dev is a layer of the namespace."""
CARDS: Final = {"card_0", "card_1", "card_2", "card_3"}


def hold(node: Node, name: str, gpu: int = 1) -> set[str]:
    """Runs a pod as users of the device plugin write it; its cards."""
    return set(run_pod(node.api, name, container(gpu=gpu), nodeName=None)["main"].cards.split(","))


def driver_of(node: Node, host: NodeHost) -> DraNode:
    """The deployed driver as the cluster sees it."""
    return DraNode(node, host)


def test_the_overlay_rolls_out_and_again_under_pods_and_leaves_no_warning_event(
    deployment: Deployment, prepared: Node, host: NodeHost
) -> None:
    deployment.apply_overlay("dra")
    deployment.wait_until_rolled_out()
    driver = driver_of(prepared, host)
    driver.wait_for_devices(4)
    assert deployment.failing_checks() <= SIMULATED
    held = hold(prepared, "before")
    before = driver.slice_versions()
    words = (f"--namespace={NAMESPACE}", "rollout", "restart", f"daemonset/{NAME}")
    old = deployment.pods()
    deployment.run("kubectl", *words)
    count = 0
    while set(old) & set(deployment.pods()):
        # No pod waits for the kubelet's second attempt, which follows after a minute.
        assert hold(prepared, f"meanwhile-{count}") <= CARDS - held
        driver.end(f"meanwhile-{count}")
        count += 1
    deployment.wait_until_rolled_out()
    assert count > 1
    held |= hold(prepared, "after", 3)
    assert held == CARDS, "no card is in two pods"
    assert driver.slice_versions() == before
    assert deployment.warnings() == []


def test_a_kustomization_may_change_the_namespace(
    deployment: Deployment, prepared: Node, tmp_path: Path
) -> None:
    overlay = os.path.relpath(MANIFESTS / "overlays/dra", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(
        json.dumps({"namespace": "default", "resources": [overlay]})
    )
    words = ("apply", "--dry-run=server", "--output=name", "--kustomize", str(tmp_path))
    created = deployment.run("kubectl", *words).split()
    assert len([each for each in created if each.startswith("deviceclass")]) == 4


def test_the_chart_rolls_out_in_dra_mode(
    deployment: Deployment, prepared: Node, host: NodeHost
) -> None:
    deployment.install_chart("offerBy=dra")
    deployment.wait_until_rolled_out()
    driver_of(prepared, host).wait_for_devices(4)
    assert hold(prepared, "user", 4) == CARDS


def test_a_cluster_that_is_switched_by_one_overlay_keeps_every_pod(
    deployment: Deployment, prepared: Node, host: NodeHost
) -> None:
    deployment.apply_overlay("base", SOONER)
    deployment.wait_until_rolled_out()
    prepared.view.wait_for(CARDS)
    held = hold(prepared, "before")
    deployment.apply_overlay("dra", SOONER)
    deployment.wait_until_rolled_out()
    driver = driver_of(prepared, host)
    driver.wait_for_devices(4)
    driver.wait_for_taints(*held, "held-by-device-plugin")
    wait_until_no_plugin_is_counted(prepared)
    assert hold(prepared, "after", 3) == CARDS - held
    assert prepared.api.pod("before")["status"]["phase"] == "Running"


def test_a_node_is_moved_by_its_label_and_back(
    deployment: Deployment, prepared: Node, host: NodeHost
) -> None:
    commands = documented_move()
    deployment.apply_overlay("migration-to-dra", SOONER)
    deployment.wait_until_rolled_out()
    prepared.view.wait_for(CARDS)
    held = hold(prepared, "before")
    driver = driver_of(prepared, host)
    try:
        deployment.run("sh", "-e", "-c", commands["there"])
        deployment.wait_until_rolled_out("br-gpu-dra")
        driver.wait_for_devices(4)
        driver.wait_for_taints(*held, "held-by-device-plugin")
        wait_until_no_plugin_is_counted(prepared)
        by_dra = hold(prepared, "there", 3)
        assert by_dra == CARDS - held
    finally:
        deployment.run("sh", "-e", "-c", commands["back"])
    prepared.api.delete_pods()
    deployment.wait_until_rolled_out()
    prepared.view.wait_for(CARDS)
    wait_until_plugin_is_counted(prepared, len(CARDS))
    assert hold(prepared, "back", 4) == CARDS


def documented_move() -> dict[str, str]:
    """The commands in the documentation that move a node, by direction."""
    page = (ROOT / "docs/migrate-to-dra.md").read_text()
    there = page.partition("## Move a node")[2].partition("```sh\n")[2].partition("```")[0]
    back = page.partition("## Back")[2].partition("```sh\n")[2].partition("```")[0]
    commands = {"there": there, "back": back}
    for text in commands.values():
        assert "kubectl label node NODE" in text
    # A drain would end the pods that the test observes.
    return {
        way: "\n".join(line for line in text.splitlines() if "label" in line).replace(
            "NODE", NODE_NAME
        )
        for way, text in commands.items()
    }
