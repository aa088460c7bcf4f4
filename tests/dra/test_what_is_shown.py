"""What status, metrics and doctor show of a node that offers its cards through DRA."""

import json
import logging
from pathlib import Path
from typing import Any

import attrs
import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from biren_plugin.commands.doctor.diagnosis import Check, Verdict
from biren_plugin.commands.doctor.dra_checks import (
    EVENT_RIGHTS,
    RIGHTS,
    check_dra,
    check_node_events,
)
from biren_plugin.commands.show_status import ask, show_status
from biren_plugin.core.dra.driver_state import DriverState
from biren_plugin.core.parse.vendor import FEATURE_FILE
from biren_plugin.core.settings import Settings
from biren_plugin.daemon_state import DaemonState
from biren_plugin.monitor.metrics import Metrics
from biren_plugin.supervise import Pace
from tests.support.cards import GPU, devices, listed
from tests.support.daemon_states import new_state
from tests.support.documents import ROOT
from tests.support.dra_node import DraNode, in_thread


async def status_of(node: DraNode) -> dict[str, Any]:
    """The status document, held to its schema."""
    found: dict[str, Any] = await in_thread(lambda: ask(node.settings.status_dir))
    schema = json.loads((ROOT / "schema/status.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(found)
    return found


async def rows_of(node: DraNode, **settings: Any) -> dict[str, Check]:
    """The rows of doctor about DRA, by name."""
    given = attrs.evolve(node.settings, **settings)
    found = await in_thread(lambda: list(check_dra(given)))
    return {each.name: each for each in found}


async def test_status_shows_the_driver_its_services_its_devices_and_whose_claims_are_prepared(
    node: DraNode, capsys: pytest.CaptureFixture[str]
) -> None:
    card = next(iter(node.devices()))
    claim = node.allocate("cards", card)
    await in_thread(lambda: node.kubelet.prepare("team/train", claim))
    while not (document := await status_of(node))["claims"]:
        pass  # the kubelet is asked once a second
    driver = document["dra"]
    assert driver["registered"]
    assert driver["used_services"] == ["v1.DRAPlugin", "v1alpha1.DRAResourceHealth"]
    assert driver["stored_devices"] == driver["wanted_devices"] == len(node.devices())
    while not document["claims"][0]["claim"]:
        document = await status_of(node)
    assert document["claims"] == [
        {
            "uid": "uid-cards",
            "claim": {"namespace": "team", "name": "cards"},
            "pod": {"namespace": "team", "name": "train"},
            "devices": [card],
            "has_file": True,
        }
    ]
    assert document["problems"] == []
    held = [each["holder"] for one in document["resources"] for each in one["devices"]]
    assert [each["pod"] for each in held if each is not None] == ["train"]
    assert all(each["registered"] for each in document["resources"])
    await in_thread(lambda: show_status(node.settings.status_dir, as_json=False, watch=False))
    shown = capsys.readouterr().out
    assert "DRA: driver registered with the kubelet, called as v1.DRAPlugin" in shown
    assert "team/cards" in shown
    assert "team/train" in shown


async def test_an_api_server_that_is_away_is_a_problem_until_it_is_back(node: DraNode) -> None:
    node.server.refuse = lambda _method, _path: (503, "starting")
    node.host.pull_node("card_0")
    problem: list[str] = []

    async def has_problem() -> bool:
        problem[:] = (await status_of(node))["problems"]
        return bool(problem)

    while not await has_problem():
        pass
    assert any("starting" in each for each in problem)
    node.server.refuse = lambda _method, _path: None
    while await has_problem():
        pass


@pytest.mark.parametrize(
    ("method", "right"),
    [("PUT", "update resourceslices"), ("DELETE", "delete resourceslices")],
)
async def test_a_missing_right_is_named_as_a_role_names_it(
    node: DraNode, method: str, right: str
) -> None:
    node.server.refuse = lambda asked, _path: (403, "forbidden") if asked == method else None
    if method == "PUT":
        node.host.pull_node("card_0")
    else:
        stored = node.server.slices()[0]
        stored["metadata"] = {}
        node.server.put("/apis/resource.k8s.io/v1/resourceslices/00007-left-over", stored)
    while (await status_of(node))["dra"]["forbidden"] != [right]:
        pass
    rows = await rows_of(node)
    assert rows["ResourceSlices"].verdict is Verdict.FAILURE
    assert right in rows["ResourceSlices"].seen


async def test_a_cluster_without_the_api_is_named_once_each_and_the_driver_goes_on(
    idle_node: DraNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Kubernetes 1.33 serves v1beta1 and v1beta2 of the API at most: an unknown path is no `Status`."""
    node = idle_node
    for pace in ("biren_plugin.dra.offering.PACE", "biren_plugin.cluster.object_watch.PACE"):
        monkeypatch.setattr(pace, Pace(first_wait=0.02, longest_wait=0.02))
    node.server.plain = lambda _method, path: (
        (404, b"404 page not found\n") if path.startswith("/apis/resource.k8s.io/v1/") else None
    )
    async with node.running(until_devices=False):
        await node.until(lambda: len(node.server.requests) > 30)
        document = await status_of(node)
    assert "DRA needs Kubernetes 1.34 or newer" in document["dra"]["trouble"]
    named = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING and "1.34 or newer" in each.getMessage()]  # fmt: skip
    assert len(named) == len({each.split()[0] for each in named}) <= 2, named


async def test_a_field_that_the_cluster_drops_is_named(idle_node: DraNode) -> None:
    idle_node.server.drop = ("taints",)
    async with idle_node.running():
        idle_node.host.pull_node("card_0")
        while (await status_of(idle_node))["dra"]["dropped_fields"] != ["taints"]:
            pass
        assert "drops: taints" in (await rows_of(idle_node))["ResourceSlices"].seen


async def test_doctor_is_content_with_a_node_that_works(node: DraNode) -> None:
    node.server.allowed = lambda _verb, _resource: True
    rows = await rows_of(node)
    assert {name: each.verdict for name, each in rows.items()} == dict.fromkeys(
        ("DRA sockets", "API server", "DRA driver", "ResourceSlices", "claims"), Verdict.OK
    ), rows


@pytest.mark.parametrize("right", RIGHTS)
async def test_doctor_names_each_missing_right(idle_node: DraNode, right: tuple[str, str]) -> None:
    node = idle_node
    node.server.allowed = lambda *asked: asked != right
    row = (await rows_of(node))["API server"]
    assert row.verdict is Verdict.FAILURE
    assert row.seen.endswith(f"may not: {' '.join(right)}")


async def test_doctor_names_a_node_that_the_api_server_does_not_know(idle_node: DraNode) -> None:
    row = (await rows_of(idle_node, node_name="node-8"))["API server"]
    assert row.verdict is Verdict.FAILURE
    assert row.seen.startswith("GET /api/v1/nodes/node-8: ")
    assert "correct --node-name" in row.advice


@pytest.mark.parametrize("right", EVENT_RIGHTS)
@pytest.mark.parametrize("mode", [{"offer_by": "dra"}, {"offer_by": "device-plugin", "hami": True}])
async def test_doctor_names_a_missing_right_to_write_events(
    idle_node: DraNode, right: tuple[str, str], mode: dict[str, Any]
) -> None:
    given = attrs.evolve(idle_node.settings, **mode)
    (row,) = await in_thread(lambda: list(check_node_events(given)))
    assert row.verdict is Verdict.OK
    idle_node.server.allowed = lambda *asked: asked != right
    (row,) = await in_thread(lambda: list(check_node_events(given)))
    assert row.verdict is Verdict.WARNING
    assert row.seen.endswith(f"may not: {' '.join(right)}")
    assert "dra" if given.offer_by == "dra" else "hami" in row.advice


async def test_doctor_names_a_cluster_without_the_api_a_daemon_of_the_other_way_and_a_wrong_root(
    idle_node: DraNode,
) -> None:
    node = idle_node
    node.server.refuse = lambda _method, path: (
        (404, "not found") if path.endswith("resource.k8s.io/v1") else None
    )
    rows = await rows_of(node, kubelet_root=Path("/nowhere"))
    assert "1.34 or newer" in rows["API server"].advice
    assert "there is no /nowhere/plugins_registry" in rows["DRA sockets"].seen
    assert rows["DRA driver"].verdict is Verdict.UNKNOWN
    async with node.node.running():
        while "no daemon runs here" in (rows := await rows_of(node))["DRA driver"].seen:
            pass  # its status socket is created in a thread
    assert "offers cards through the device plugin" in rows["DRA driver"].seen


def test_doctor_has_no_row_of_dra_with_the_device_plugin() -> None:
    assert list(check_dra(Settings())) == []
    assert list(check_node_events(Settings())) == []


def value(daemon: DaemonState, name: str, **labels: str) -> float | None:
    for family in text_string_to_metric_families(Metrics(daemon).text().decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return None


async def test_metrics_of_the_driver_are_there_with_dra_only() -> None:
    state = new_state(listed(GPU, *devices(GPU, 0)))
    assert value(state, "br_gpu_dra_published") is None
    state.driver = DriverState(wanted=2, stored=1, forbidden=("create resourceslices",))
    state.counters.claims["answered"] += 1
    assert value(state, "br_gpu_registered", resource=GPU) == 0
    assert value(state, "br_gpu_dra_published") == 0
    assert value(state, "br_gpu_dra_devices", state="wanted") == 2
    assert value(state, "br_gpu_dra_devices", state="stored") == 1
    assert value(state, "br_gpu_dra_forbidden", right="create resourceslices") == 1
    assert value(state, "br_gpu_dra_claims_total", outcome="answered") == 1
    assert value(state, "br_gpu_dra_prepared_claims") == 0
    state.driver = DriverState(registered=True, wanted=2, stored=2)
    assert value(state, "br_gpu_registered", resource=GPU) == 1
    assert value(state, "br_gpu_dra_published") == 1


async def test_the_node_is_labelled_as_long_as_the_daemon_publishes(
    idle_node: DraNode, tmp_path: Path
) -> None:
    file = tmp_path / FEATURE_FILE
    async with idle_node.running(nfd_features_dir=tmp_path):
        await idle_node.until(file.exists)
    assert not file.exists()
