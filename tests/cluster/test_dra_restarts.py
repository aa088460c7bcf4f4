"""Parts end and return while pods hold cards through DRA: no card is allocated twice, and none is lost."""

import signal
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.api import PATHS, PODS
from tests.cluster.dra import (
    CLAIM_FILES,
    REGISTERED,
    SLICES,
    DraNode,
    claim_files,
    wait_until_no_plugin_is_counted,
)
from tests.cluster.node import KUBELET_ROOT
from tests.cluster.pods import LOOK, container, run_pod, start_pod
from tests.cluster.processes import poll
from tests.e2e.daemon import DaemonProcess
from tests.manifests.examples import EXAMPLES, objects_of
from tests.support.broken_daemons import ENDS_BETWEEN_FILE_AND_ANSWER, patched

WHOLE: Final = {"card_0", "card_1", "card_8"}
SOCKETS: Final = KUBELET_ROOT / "plugins_registry"


def restart_count(dra: DraNode, pod: str) -> int:
    """How often the pod's container was restarted."""
    [status] = dra.api.pod(pod)["status"]["containerStatuses"]
    return int(status["restartCount"])


def driver_of(dra: DraNode) -> DaemonProcess:
    """The running daemon."""
    [running] = [each for each in dra.daemons if each.running]
    return running


def test_deleted_slices_come_back(dra: DraNode) -> None:
    before = {name for name, _ in dra.slice_versions()}
    dra.api.delete(SLICES)
    dra.wait_for_devices(9)
    assert not before & {name for name, _ in dra.slice_versions()}


def test_a_claims_file_that_vanishes_is_back_in_a_moment(dra: DraNode) -> None:
    dra.hold_one()
    names = claim_files()
    [path] = [CLAIM_FILES / each for each in names]
    path.unlink()
    poll(lambda: claim_files() == names, "the claim's file", 5.0, claim_files)


def test_after_a_kubelet_restart_slices_are_back_and_a_held_card_stays_held(dra: DraNode) -> None:
    held = dra.hold_one()
    daemon = driver_of(dra)
    registered = len(daemon.matching(REGISTERED))
    dra.node.restart_kubelet()
    dra.wait_for_devices(9)
    found = run_pod(dra.api, "after", container(gpu=2), nodeName=None)
    assert set(found["main"].cards.split(",")) == WHOLE - {held}
    assert len(daemon.matching(REGISTERED)) >= registered
    assert dra.api.pod("holder")["status"]["phase"] == "Running"
    assert restart_count(dra, "holder") == 0


def test_a_driver_that_was_killed_knows_its_claims_and_releases_those_that_ended(
    dra: DraNode,
) -> None:
    stays = dra.hold_one("stays")
    [file] = claim_files()
    dra.hold_one("goes")
    driver_of(dra).kill()
    dra.api.delete(f"{PODS}/goes")
    dra.start_driver()
    poll(lambda: claim_files() == [file], "the claim released", 30.0, claim_files)
    found = run_pod(dra.api, "after", container(gpu=2), nodeName=None)
    assert set(found["main"].cards.split(",")) == WHOLE - {stays}


@pytest.mark.parametrize("namespace", ["default", "short-lived"])
def test_a_card_whose_pod_was_deleted_by_force_is_allocated_again_after_its_container_ended(
    dra: DraNode, namespace: str
) -> None:
    """The namespace `short-lived` is deleted together with its pod and claim."""
    path = f"{PATHS['Namespace']}/{namespace}"
    if namespace == "short-lived":
        dra.api.create(PATHS["Namespace"], {"metadata": {"name": namespace}})
        account = f"{PATHS['ServiceAccount'].format(namespace)}/default"
        poll(lambda: dra.api.exists(account), "the namespace's account")
    [template] = [
        each for each in objects_of(EXAMPLES["choose-by-attribute"])
        if each["metadata"]["name"] == "card-by-name"
    ]  # fmt: skip
    for each in {namespace, "default"}:
        dra.api.create(PATHS["ResourceClaimTemplate"].format(each), template)
    claim = {"resourceClaimTemplateName": "card-by-name"}
    dra.start("stubborn", claim, LOOK + "trap '' TERM; sleep infinity & wait", namespace)
    assert dra.inside("stubborn", namespace).cards == "card_1"
    # Without grace: the object is gone at once.
    dra.api.delete(f"{PATHS['Pod'].format(namespace)}/stubborn")
    if namespace == "short-lived":
        dra.api.delete(path)
    dra.start("next", claim)
    assert dra.inside("next").cards == "card_1"
    lines = driver_of(dra).matching(rf"{namespace}/stubborn-cards|default/next-cards")[-3:]
    assert [line.split(": ")[-1].split()[0] for line in lines] == [
        "prepared",
        "released",
        "prepared",
    ]


def test_a_driver_killed_between_a_claims_file_and_its_answer_is_followed_by_one_that_answers(
    dra: DraNode, tmp_path: Path
) -> None:
    driver_of(dra).end()
    patch = patched(ENDS_BETWEEN_FILE_AND_ANSWER, tmp_path)
    killed = dra.start_driver(environment=patch)
    start_pod(dra.api, "interrupted", container(gpu=1), nodeName=None)
    assert killed.wait(15.0) == -signal.SIGKILL
    [file] = [CLAIM_FILES / each for each in claim_files()]
    content = file.read_text()
    dra.start_driver()
    dra.node.restart_kubelet()  # which tries again at once, otherwise only after 60 to 90 s
    held = dra.inside("interrupted").cards
    assert held in WHOLE
    assert (claim_files(), file.read_text()) == ([file.name], content)
    dra.wait_for_devices(9)
    others = run_pod(dra.api, "others", container(gpu=2), nodeName=None)
    assert set(others["main"].cards.split(",")) == WHOLE - {held}


def test_while_the_api_server_is_away_claims_stay_and_a_fault_is_published_after(
    dra: DraNode,
) -> None:
    held = dra.hold_one()
    before = dra.slice_versions()
    dra.node.processes.end("kube-apiserver", signal.SIGKILL)
    try:
        dra.host.pull_node(held)
        driver_of(dra).wait_for_line("cannot connect to the API server")
    finally:
        dra.node.start_api_server()
        dra.node.wait_for_api_server()
    dra.wait_for_taints(held, "device-node")
    dra.host.put_node_back(held)
    dra.wait_for_taints(held)
    assert {name for name, _ in dra.slice_versions()} == {name for name, _ in before}
    assert dra.hold_one("after") in WHOLE - {held}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_hand_over_leaves_slices_untouched_and_costs_no_pod(
    dra: DraNode, number: signal.Signals
) -> None:
    held = dra.hold_one()
    old = driver_of(dra)
    before = dra.slice_versions()
    dra.start_driver()
    assert dra.hold_one("both") != held
    old.end(number)
    assert dra.hold_one("after") != held
    assert dra.slice_versions() == before
    dra.clean()
    left = list(SOCKETS.glob("gpu.birentech.com*"))
    assert len(left) == (1 if number == signal.SIGTERM else 2), "a killed one removes no socket"


def test_a_fault_evicts_pods_with_claims_and_leaves_pods_of_the_extended_name(
    dra: DraNode,
) -> None:
    driver_of(dra).end()
    evicting = dra.start_driver("--evict-on=device-node")
    dra.wait_for_devices(9)
    dra.start_example("shared-claim")
    claimed = dra.inside("first-user").cards
    by_name = dra.hold_one()
    for card in (claimed, by_name):
        dra.host.pull_node(card)
        assert dra.wait_for_taints(card, "device-node")["device-node"]["effect"] == "NoExecute"
    poll(lambda: not dra.api.exists(f"{PODS}/first-user"), "the eviction")
    assert "deletionTimestamp" not in dra.api.pod("holder")["metadata"]
    for card in (claimed, by_name):
        dra.host.put_node_back(card)
        dra.wait_for_taints(card)
    dra.clean()
    evicting.end()


def test_a_node_that_switches_to_dra_allocates_no_card_that_a_pod_holds_through_the_plugin(
    dra: DraNode,
) -> None:
    driver_of(dra).end()
    dra.api.delete(SLICES)
    plugin = dra.start_plugin()
    dra.node.view.wait_for(WHOLE)
    held = run_pod(dra.api, "old", container(gpu=1))["main"].cards
    plugin.end()
    dra.start_driver()
    dra.wait_for_devices(9)
    dra.wait_for_taints(held, "held-by-device-plugin")
    wait_until_no_plugin_is_counted(dra.node)
    found = run_pod(dra.api, "new", container(gpu=2), nodeName=None)
    assert set(found["main"].cards.split(",")) == WHOLE - {held}
    start_pod(dra.api, "waits", container(gpu=1), nodeName=None)
    dra.end("old")
    dra.wait_for_taints(held)
    assert dra.inside("waits").cards == held


def test_a_node_that_switches_back_allocates_no_card_that_a_claim_holds(dra: DraNode) -> None:
    dra.start_example("shared-claim")
    held = dra.inside("first-user").cards
    driver_of(dra).end()
    plugin = dra.start_plugin()
    dra.node.view.wait_for(WHOLE - {held})
    found = run_pod(dra.api, "new", container(gpu=2))
    assert set(found["main"].cards.split(",")) == WHOLE - {held}
    plugin.end()
