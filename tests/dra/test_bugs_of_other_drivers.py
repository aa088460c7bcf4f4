"""Each bug that other DRA drivers had, by its number in the list below: a test that would catch it here.

| # | bug | seen in |
| --- | --- | --- |
| 1 | slices deleted at the kubelet's start never come back | NVIDIA #330 |
| 2 | a checkpoint of another version ends in a crash loop | NVIDIA #1080, #1100, #1326 |
| 3 | "prepared" after a reboot, with the file gone | NVIDIA #951, ROCm #75 |
| 4 | one device for two pods after a force delete | kubernetes #141471 |
| 5 | device names by minor number mean another card after a reboot | ROCm #83, NVIDIA #427, #930 |
| 6 | an admission policy that restricts nobody | NVIDIA #1317 |
| 7 | taints that stay after recovery; a failed publish is forgotten | NVIDIA #1455, #904 |
| 8 | no health service: an error in the kubelet's log each 5 s | NVIDIA #1423 |
| 9 | a socket path that is too long with a pod's uid | kubernetes #139166 |
| 10 | a kubelet root in the code; a start that fails on a left-over socket | dra-driver-cpu #231, dranet #19 |
| 11 | a cached CDI entry answers for another claim; a node that is not there yet | NVIDIA #1144, #1458 |
| 12 | a slice without devices, and no word why | NVIDIA #1008 |
| 13 | a late Prepare leaves a claim prepared for ever | NVIDIA #1188, #1205 |
| 14 | a documented attribute that is not published | AMD's documentation |
| 15 | a driver that hangs is not noticed; Unprepare needs the API server | kubernetes #141912, #129402 |
| 16 | one stale entry fails the whole start | ROCm #78 |
| 17 | a status write that Kubernetes 1.36 refuses | kubernetes #138149 |
| 18 | endless updates for a field that the server drops | the helper of the drivers |
"""

import re
import shutil
import socket
import threading
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from ruamel.yaml import YAML

from biren_plugin.core.dra.pool import pool_of
from biren_plugin.core.model import DeviceList, Inventory
from biren_plugin.dra import claim_service
from biren_plugin.dra.driver_sockets import LONGEST_PATH, sockets_of
from biren_plugin.files.claim_files import ClaimFiles
from tests.core.dra.test_pool import whole
from tests.kubelet.dra_manager import PrepareError
from tests.support.api_server import SLICES
from tests.support.cards import GPU
from tests.support.documents import ROOT
from tests.support.dra_node import CLAIMS, DraNode, in_thread

MANIFESTS = ROOT / "manifests"


def whole_gpu(node: DraNode) -> str:
    """The device of a GPU that is not split."""
    return next(name for name in node.devices() if name.startswith("gpu-"))


async def test_bug_01_slices_that_the_kubelet_deletes_at_its_start_come_back(node: DraNode) -> None:
    before = node.devices()
    for each in node.server.slices():
        node.server.delete(f"{SLICES}/{each['metadata']['name']}")
    await node.until(lambda: node.devices() == before)


@pytest.mark.parametrize(
    "content", ["", "{", '{"version": "v9", "checksum": 1}', '{"devices": [{"name": 3}, 4]}']
)
async def test_bug_02_files_of_another_version_keep_nothing_from_starting(
    idle_node: DraNode, content: str
) -> None:
    node = idle_node
    node.claim_dir.mkdir()
    (node.claim_dir / "birentech.com-claim_uid-old.json").write_text(content)
    async with node.running():
        claim = node.allocate("new", whole_gpu(node))
        assert (await in_thread(lambda: node.kubelet.prepare("team/new", claim)))["uid-new"]


async def test_bug_03_a_claim_is_prepared_again_after_a_reboot(node: DraNode) -> None:
    claim = node.allocate("one", whole_gpu(node))
    first = await in_thread(lambda: node.kubelet.prepare("team/one", claim))
    names = [each["cdi"] for each in first["uid-one"]]
    files = node.files()
    shutil.rmtree(node.claim_dir)  # a tmpfs
    with node.new_kubelet() as kubelet:
        await in_thread(lambda: kubelet.wait_for("registered"))
        again = await in_thread(lambda: kubelet.prepare("team/one", claim))
    assert node.files() == files
    # The second answer is appended to the first: other names would stay beside them for ever.
    assert [each["cdi"] for each in again["uid-one"]] == names * 2


async def test_bug_04_a_card_of_a_force_deleted_pod_is_not_given_away_before_it_is_released(
    node: DraNode,
) -> None:
    card = whole_gpu(node)
    old, new = node.allocate("old", card), node.allocate("new", card)
    await in_thread(lambda: node.kubelet.prepare("team/old", old))
    answers: list[Any] = []

    async def prepare_new() -> None:
        answers.append(await in_thread(lambda: node.kubelet.prepare("team/new", new)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(prepare_new)
        await node.until(lambda: ("GET", f"{CLAIMS}/new") in node.server.requests)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not answers
        assert list(node.files()) == ["uid-old"]
        await in_thread(lambda: node.kubelet.unprepare("team/old", "uid-old"))
    assert answers[0]["uid-new"][0]["device"] == card
    assert list(node.files()) == ["uid-new"]


def test_bug_05_a_device_keeps_its_name_when_the_driver_numbers_its_cards_otherwise() -> None:
    before = [whole(0), whole(1)]
    after = [
        attrs.evolve(
            each, card=attrs.evolve(each.card, name=f"card_{9 - number}", number=9 - number)
        )
        for number, each in enumerate(before)
    ]
    pools = [pool_of(Inventory((DeviceList(GPU, tuple(each)),)), None) for each in (before, after)]
    addresses = [
        {name: device.card.pci_address for name, device in pool.devices.items()} for pool in pools
    ]
    assert addresses[0] == addresses[1]


def test_bug_06_the_admission_policy_restricts_the_account_of_the_daemonset() -> None:
    """The rendered manifests, the chart's too, are tests/manifests/test_dra's."""
    yaml = YAML(typ="safe", pure=True)
    component = MANIFESTS / "components/dra"
    objects = [
        each for name in ("policy.yaml", "rights.yaml") for each in yaml.load_all(component / name)
    ]
    policy = next(each for each in objects if each["kind"] == "ValidatingAdmissionPolicy")
    binding = next(each for each in objects if each["kind"] == "ValidatingAdmissionPolicyBinding")
    account = next(each for each in objects if each["kind"] == "ServiceAccount")["metadata"]["name"]
    (condition,) = policy["spec"]["matchConditions"]
    assert f'endsWith(":{account}")' in condition["expression"]
    assert "v1" in policy["spec"]["matchConstraints"]["resourceRules"][0]["apiVersions"]
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert binding["spec"]["validationActions"] == ["Deny"]
    assert account in (component / "kustomization.yaml").read_text()


async def test_bug_07_a_taint_is_stored_once_the_api_is_back_and_goes_on_recovery(
    node: DraNode,
) -> None:
    device = whole_gpu(node)
    card = node.devices()[device]["attributes"]["card"]["string"]
    failures = iter([(503, "away")] * 2)
    node.server.refuse = lambda method, _path: next(failures, None) if method == "PUT" else None
    node.host.pull_node(card)
    await node.until(lambda: node.taints(device) == {"gpu.birentech.com/device-node": "NoSchedule"})
    node.host.put_node_back(card)
    await node.until(lambda: node.taints(device) == {})


async def test_bug_08_the_health_stream_is_served_and_repeated_before_the_kubelet_forgets(
    idle_node: DraNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert claim_service.HEALTH_INTERVAL < 30 / 2, "the kubelet believes a list for 30 s"
    monkeypatch.setattr(claim_service, "HEALTH_INTERVAL", 0.05)
    node = idle_node
    async with node.running():
        await node.until(lambda: node.kubelet.lists >= 3)
        assert node.kubelet.health.keys() == node.devices().keys()
        assert set(node.kubelet.health.values()) == {("HEALTHY", "")}


def test_bug_09_socket_paths_fit_with_a_pods_uid_below_a_long_kubelet_root() -> None:
    uid = "6b1f0a52-1111-2222-3333-444455556666"
    for root in ("/var/lib/kubelet", "/var/snap/microk8s/common/var/lib/kubelet"):
        one, other = sockets_of(Path(root), uid), sockets_of(Path(root), uid[::-1])
        for path in (one.plugin, one.registration):
            assert len(str(path)) <= LONGEST_PATH
        assert {one.plugin, one.registration}.isdisjoint({other.plugin, other.registration})


async def test_bug_10_sockets_left_over_below_another_kubelet_root_are_replaced(
    idle_node: DraNode,
) -> None:
    node = idle_node
    sockets = sockets_of(node.root, "by-hand")
    sockets.plugin.parent.mkdir(parents=True)
    for path in (sockets.plugin, sockets.registration):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
    async with node.running():
        await in_thread(node.kubelet.probe)
        assert Path(node.kubelet.instance().endpoint) == sockets.plugin
        assert node.root in sockets.plugin.parents


async def test_bug_11_no_two_claims_share_a_cdi_name_and_a_missing_node_is_waited_for(
    node: DraNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = whole_gpu(node)
    card = node.devices()[device]["attributes"]["card"]["string"]
    names: set[str] = set()
    for name in ("one", "two"):
        claim = node.allocate(name, device)
        answer = await in_thread(partial(node.kubelet.prepare, "team/pod", claim))
        names.update(each for found in answer[claim[2]] for each in found["cdi"])
        await in_thread(partial(node.kubelet.unprepare, "team/pod", claim[2]))
    assert len(names) == 2
    node.host.pull_node(card)
    await node.until(lambda: bool(node.taints(device)))
    toleration = {"operator": "Exists"}
    claim = node.allocate("three", device, tolerations=[toleration])
    monkeypatch.setattr(claim_service, "PATIENCE", 0.0)
    with pytest.raises(PrepareError, match="has no device node"):
        await in_thread(lambda: node.kubelet.prepare("team/pod", claim))
    monkeypatch.setattr(claim_service, "PATIENCE", 20.0)
    answers: list[Any] = []

    async def prepare() -> None:
        answers.append(await in_thread(lambda: node.kubelet.prepare("team/pod", claim)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(prepare)
        node.host.put_node_back(card)
    assert answers[0]["uid-three"]


async def test_bug_12_a_pool_without_devices_is_stored_and_explained(
    idle_node: DraNode, caplog: pytest.LogCaptureFixture
) -> None:
    node = idle_node
    for gpu in range(3):
        node.host.remove_gpu(gpu)
    async with node.running(until_devices=False):
        await node.until(lambda: bool(node.server.slices()))
        assert not node.devices()
        assert any("no Biren card" in text for text in caplog.messages)


async def test_bug_13_a_prepare_that_was_given_up_leaves_nothing_prepared(
    node: DraNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, go_on = threading.Event(), threading.Event()
    write = ClaimFiles.write

    def write_slowly(files: ClaimFiles, uid: str, spec: Any) -> None:
        write(files, uid, spec)
        written.set()
        go_on.wait(20)

    monkeypatch.setattr(ClaimFiles, "write", write_slowly)
    _, name, uid = node.allocate("one", whole_gpu(node))
    instance = node.kubelet.instance()
    protos = instance.protos
    claim = protos.Claim(namespace="team", name=name, uid=uid)
    call = instance.stub.NodePrepareResources.future(
        protos.NodePrepareResourcesRequest(claims=[claim])
    )
    await in_thread(lambda: written.wait(20))
    call.cancel()
    unprepared = instance.stub.NodeUnprepareResources.future(
        protos.NodeUnprepareResourcesRequest(claims=[claim])
    )
    go_on.set()
    answer = await in_thread(lambda: unprepared.result(timeout=20))
    assert not answer.claims[uid].error
    await node.until(lambda: node.files() == {})


async def test_bug_14_each_documented_attribute_is_published_and_each_published_one_documented(
    node: DraNode,
) -> None:
    """The examples' expressions are evaluated against published devices by tests/manifests."""
    section = (ROOT / "docs/dra.md").read_text().partition("## What a device shows")[2]
    documented = set(re.findall(r"`([\w./]+)`", _first_column(section)))
    for device in node.devices().values():
        published = {*device["attributes"], *device["capacity"]}
        assert published == documented


def _first_column(section: str) -> str:
    rows = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    return "\n".join(row.split("|")[1] for row in rows)


async def test_bug_15_a_prepare_of_nothing_is_answered_and_unprepare_needs_no_api_server(
    node: DraNode,
) -> None:
    claim = node.allocate("one", whole_gpu(node))
    await in_thread(lambda: node.kubelet.prepare("team/one", claim))
    node.server.refuse = lambda _method, _path: (500, "broken")
    await in_thread(node.kubelet.probe)
    await in_thread(lambda: node.kubelet.unprepare("team/one", "uid-one"))
    assert node.files() == {}


async def test_bug_16_one_stale_file_harms_its_own_claim_only(idle_node: DraNode) -> None:
    node = idle_node
    node.claim_dir.mkdir()
    (node.claim_dir / "birentech.com-claim_uid-folder.json").mkdir()
    name = "uid-old:cards:gpu-that-is-gone"
    stale = f'{{"devices": [{{"name": "{name}", "containerEdits": {{}}}}]}}'
    (node.claim_dir / "birentech.com-claim_uid-old.json").write_text(stale)
    async with node.running():
        claim = node.allocate("new", whole_gpu(node))
        await in_thread(lambda: node.kubelet.prepare("team/new", claim))


async def test_bug_17_no_status_is_written(node: DraNode) -> None:
    claim = node.allocate("one", whole_gpu(node))
    await in_thread(lambda: node.kubelet.prepare("team/one", claim))
    await in_thread(lambda: node.kubelet.unprepare("team/one", "uid-one"))
    assert node.server.writes()
    assert all(path.startswith(SLICES) for _, path in node.server.writes())


@pytest.mark.parametrize("dropped", [("taints",), ("attributes",), ("taints", "capacity")])
async def test_bug_18_a_field_that_the_server_drops_is_not_sent_again_and_again(
    idle_node: DraNode, dropped: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    node = idle_node
    node.server.drop = dropped
    async with node.running():
        card = "card_0"
        for _ in range(3):
            node.host.pull_node(card)
            await node.until(
                lambda: any("UNHEALTHY" in each for each in node.kubelet.health.values())
            )
            node.host.put_node_back(card)
            await node.until(
                lambda: all("HEALTHY" in each for each in node.kubelet.health.values())
            )
        await trio.testing.wait_all_tasks_blocked(0.2)
        # One write shows that the field is dropped; what it then holds is known.
        writes = [path for _, path in node.server.writes() if path.startswith(SLICES)]
        assert len(writes) <= (2 if "taints" in dropped else 7)
        said = [text for text in caplog.messages if "the API server drops" in text]
        assert len(said) <= len(dropped), "each field is named once"


def test_each_bug_of_the_list_has_a_test() -> None:
    listed = re.findall(r"^\| (\d+) \|", __doc__ or "", re.M)
    tested = {int(name.split("_")[2]) for name in globals() if name.startswith("test_bug_")}
    assert [int(each) for each in listed] == sorted(tested)
