"""Pods and claims on a node that offers its cards through DRA: the examples, faults, rights."""

import contextlib
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from biren_plugin.core.parse.vendor import DRA_DRIVER
from tests.cluster.api import PATHS, Api, ApiError
from tests.cluster.dra import CLAIMS, SLICES, DraNode, slice_of
from tests.cluster.host import MAJOR
from tests.cluster.isolation import NODE_NAME
from tests.cluster.pods import STAY, container, run_pod
from tests.cluster.processes import poll
from tests.manifests.examples import EXAMPLES, objects_of, specs_of
from tests.support.vfio_host import VfioHost

WHOLE: Final = {"card_0", "card_1", "card_8"}
HALVES: Final = {"card_2", "card_3"}
QUARTERS: Final = {"card_4", "card_5", "card_6", "card_7"}
WATCHING: Final = "gpu-monitoring"


def create_templates(dra: DraNode) -> None:
    """Creates the templates of the example `choose-by-attribute`, without its pod."""
    for each in objects_of(EXAMPLES["choose-by-attribute"]):
        if each["kind"] != "Pod":
            dra.api.make(each)


def test_a_pod_written_for_the_device_plugin_runs_untouched(dra: DraNode) -> None:
    dra.start_example("unchanged-pod")
    found = dra.inside("unchanged")
    cards = found.cards.split(",")
    assert len(cards) == 2
    assert set(cards) <= WHOLE
    nodes = {each for each in found.opens if each.startswith("biren/")}
    assert nodes == {f"biren/{card}" for card in cards}


def test_each_container_gets_its_own_cards_and_one_that_asks_for_none_gets_none(
    dra: DraNode,
) -> None:
    containers = container("a", gpu=1), container("b", half=1), container("c")
    found = run_pod(dra.api, "parts", *containers, nodeName=None)
    assert found["a"].cards in WHOLE
    assert found["b"].cards in HALVES
    assert (found["c"].cards, found["c"].nodes) == ("", {})


def test_every_choice_by_an_attribute_is_a_card_that_has_it(dra: DraNode) -> None:
    create_templates(dra)
    # While the first three run, each has the one card that is left for it.
    chosen = {
        "card-by-name": {"card_1"},
        "numa-node": {"card_0"},
        "driver-version": {"card_8"},
        "card-by-address": {"card_1"},
        "product-and-memory": WHOLE - {"card_1"},
    }
    templates = specs_of(objects_of(EXAMPLES["choose-by-attribute"])).keys()
    assert templates - chosen.keys() == {"card-by-uuid"}, "which this host without a library lacks"
    for template, cards in chosen.items():
        if template == "card-by-address":
            dra.api.delete_pods()
        dra.start(template, {"resourceClaimTemplateName": template})
        assert dra.inside(template).cards in cards


def test_cards_below_one_root_are_taken_together(dra: DraNode) -> None:
    dra.start_example("cards-that-are-close")
    assert set(dra.inside("close").cards.split(",")) == {"card_0", "card_1"}


def test_halves_are_allocated_while_there_is_one_then_quarters(dra: DraNode) -> None:
    dra.start_example("half-else-quarter")
    found = [dra.inside("half-or-quarter").cards]
    for name in ("second", "third"):
        dra.start(name, {"resourceClaimTemplateName": "half-else-quarter"})
        found.append(dra.inside(name).cards)
    assert set(found[:2]) == HALVES
    assert found[2] in QUARTERS


def test_two_pods_share_the_card_of_one_claim_until_both_have_ended(dra: DraNode) -> None:
    dra.start_example("shared-claim")
    card = dra.inside("first-user").cards
    assert dra.inside("second-user").cards == card
    dra.end("first-user")
    assert dra.api.get(f"{CLAIMS}/shared-card")["status"]["allocation"]
    dra.end("second-user")
    dra.api.delete(f"{CLAIMS}/shared-card")


def test_a_monitoring_pod_sees_every_card_that_others_hold(dra: DraNode) -> None:
    dra.start_example("unchanged-pod")
    held = set(dra.inside("unchanged").cards.split(","))
    dra.start_example("admin-access")
    assert set(dra.inside("watcher", WATCHING).cards.split(",")) == WHOLE
    run_pod(dra.api, "rest", container(gpu=1), nodeName=None)
    assert dra.inside("rest").cards in WHOLE - held
    dra.end("watcher", WATCHING)
    dra.api.delete(PATHS["ResourceClaimTemplate"].format(WATCHING))


def test_admin_access_is_refused_outside_of_a_labelled_namespace(dra: DraNode) -> None:
    [template] = [
        each for each in objects_of(EXAMPLES["admin-access"])
        if each["kind"] == "ResourceClaimTemplate"
    ]  # fmt: skip
    template["metadata"]["namespace"] = "default"
    with pytest.raises(ApiError, match="admin access to devices requires"):
        dra.api.make(template)


def test_a_faulty_cards_pod_says_why_and_the_taint_clears_by_itself(dra: DraNode) -> None:
    dra.start_example("shared-claim")
    card = dra.inside("first-user").cards
    assert dra.health("first-user") == [("Healthy", "")]
    dra.host.pull_node(card)
    taints = dra.wait_for_taints(card, "device-node")
    assert taints["device-node"]["effect"] == "NoSchedule"
    [(health, message)] = wait_for_health(dra, "first-user", "Unhealthy")
    assert f"/dev/biren/{card}" in message, (health, message)
    dra.host.put_node_back(card)
    dra.wait_for_taints(card)
    wait_for_health(dra, "first-user", "Healthy")
    wait_for_events_of_the_node(dra, card, "BirenGpuUnhealthy", "BirenGpuHealthy")


def wait_for_events_of_the_node(dra: DraNode, card: str, *reasons: str) -> None:
    """Waits until there are Events with these reasons where `kubectl describe node` looks for them."""
    query = (
        f"involvedObject.kind=Node,involvedObject.name={NODE_NAME},involvedObject.uid={NODE_NAME}"
    )

    def found() -> set[str]:
        events = dra.api.get(f"/api/v1/namespaces/default/events?fieldSelector={query}")["items"]
        return {each["reason"] for each in events if f": {card} is " in each["message"]}

    poll(lambda: found() >= set(reasons), f"Events {reasons}", 10.0, found)


def test_a_claim_of_a_kata_node_gets_the_nodes_of_its_vfio_group(dra: DraNode, state: Path) -> None:
    root = state / "kata-host"
    host = VfioHost(root)
    for gpu, group in enumerate((7, 8)):
        host.add_whole(gpu, group)
    with real_vfio_nodes(host, "vfio", "7", "8"):
        dra.end_drivers()
        driver = dra.start_driver("--container-runtime=kata", f"--host-root={root}")
        poll(lambda: len(dra.slices()) == 1 and all(
            each["attributes"]["type"]["string"] == "vfio-gpu"
            for each in dra.slices()[0]["spec"].get("devices") or [{"attributes": {"type": {"string": ""}}}]
        ), "VFIO groups", 15.0, dra.slices)  # fmt: skip
        dra.api.make({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": "group", "namespace": "default"},
            "spec": {"devices": {"requests": [
                {"name": "vm", "exactly": {"deviceClassName": "vfio-gpu.birentech.com"}},
            ]}},
        })  # fmt: skip
        look = "cd /dev/vfio; for n in *; do echo node vfio/$n $(stat -c %t:%T $n) no; done; echo cards; echo end; "
        dra.start("vm", {"resourceClaimName": "group"}, look + STAY)
        nodes = dra.inside("vm").nodes
        assert set(nodes) == {"vfio/vfio", "vfio/7"}, nodes
        assert nodes["vfio/7"] == f"{MAJOR:x}:7"
        dra.clean()
        driver.end()


@contextlib.contextmanager
def real_vfio_nodes(host: VfioHost, *names: str) -> Iterator[None]:
    """Real device nodes in place of the host's links, at /dev/vfio too."""
    mine, nodes = host.root / "dev/vfio", Path("/dev/vfio")
    for minor, name in enumerate(names):
        (mine / name).unlink()
        number = int(name) if name.isdigit() else minor
        os.mknod(mine / name, stat.S_IFCHR | 0o666, os.makedev(MAJOR, number))
    nodes.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", str(mine), str(nodes)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(nodes)], check=True)


def wait_for_health(dra: DraNode, pod: str, wanted: str) -> list[tuple[str, str]]:
    """The health of the pod's devices, once each device has the wanted one."""
    poll(
        lambda: {each for each, _ in dra.health(pod)} == {wanted},
        f"{pod} {wanted}", 10.0, lambda: dra.health(pod),
    )  # fmt: skip
    return dra.health(pod)


def test_an_unchanged_taint_keeps_its_time(dra: DraNode) -> None:
    dra.host.pull_node("card_0")
    added = dra.wait_for_taints("card_0", "device-node")["device-node"]["timeAdded"]
    time.sleep(1.1)  # times have whole seconds
    dra.host.pull_node("card_1")
    dra.wait_for_taints("card_1", "device-node")
    assert dra.taints("card_0")["device-node"]["timeAdded"] == added
    for card in ("card_0", "card_1"):
        dra.host.put_node_back(card)
        dra.wait_for_taints(card)


def test_a_tainted_card_is_allocated_to_no_pod_until_it_recovers(
    dra: DraNode,
) -> None:
    create_templates(dra)
    dra.host.pull_node("card_1")
    dra.wait_for_taints("card_1", "device-node")
    dra.start("waits", {"resourceClaimTemplateName": "card-by-name"})
    poll(lambda: "cannot allocate all claims" in dra.about("waits"), "no card for the pod")
    dra.host.put_node_back("card_1")
    assert dra.inside("waits").cards == "card_1"


def test_a_warning_is_a_taint_that_keeps_no_pod_away(dra: DraNode) -> None:
    dra.end_drivers()
    observing = dra.start_driver("--probe=pci-config=observe")
    dra.wait_for_devices(9)
    create_templates(dra)
    dra.host.silence("card_1")
    assert dra.wait_for_taints("card_1", "pci-config")["pci-config"]["effect"] == "None"
    dra.start("takes-it", {"resourceClaimTemplateName": "card-by-name"})
    assert dra.inside("takes-it").cards == "card_1"
    dra.host.unsilence("card_1")
    dra.wait_for_taints("card_1")
    dra.clean()
    observing.end()


def test_a_nodes_account_may_change_its_drivers_slices_of_its_own_node_only(dra: DraNode) -> None:
    ours = Api(dra.become_pod("other-user"))
    unbound = Api(dra.token())

    def refusal(api: Api, body: Any) -> str:
        with pytest.raises(ApiError) as raised:
            api.create(SLICES, body)
        return str(raised.value)

    assert "own node only" in refusal(ours, slice_of("another-node"))
    everywhere = slice_of(NODE_NAME)
    del everywhere["spec"]["nodeName"]
    everywhere["spec"]["allNodes"] = True
    assert "own node only" in refusal(ours, everywhere)
    assert f"slices of {DRA_DRIVER} only" in refusal(ours, slice_of(NODE_NAME, "gpu.example.com"))
    assert "bound to a node" in refusal(unbound, slice_of(NODE_NAME))

    theirs = dra.api.create(SLICES, slice_of("another-node"))
    path = f"{SLICES}/{theirs['metadata']['name']}"
    for change in (lambda: ours.text("DELETE", path), lambda: ours.put(path, theirs)):
        with pytest.raises(ApiError, match="own node only"):
            change()
    dra.api.delete(path)


def test_the_account_has_no_right_beyond_those_it_uses(dra: DraNode) -> None:
    ours = Api(dra.become_pod("curious"))
    for method, path in (
        ("GET", CLAIMS), ("DELETE", SLICES), ("GET", f"/api/v1/nodes/{NODE_NAME}"),
        ("GET", PATHS["Pod"].format("default")), ("GET", PATHS["DeviceClass"]),
    ):  # fmt: skip
        with pytest.raises(ApiError, match="forbidden"):
            ours.text(method, path)
