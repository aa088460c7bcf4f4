"""A claim gets its cards, always in the same way, or a sentence with the reason."""

from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from biren_plugin.core.cdi.spec import Spec
from biren_plugin.core.dra.claims import (
    ClaimId,
    allocated_of,
    check_usable,
    held_by,
    prepared_of,
    spec_of,
)
from biren_plugin.core.model import Device, HostFacts
from biren_plugin.core.observed import ClaimFile
from biren_plugin.core.parse.card import Card
from biren_plugin.core.parse.claim_device import ClaimDevice
from biren_plugin.errors import ApiUnreachable, ClaimNotReady, ClaimRefused
from tests.support.cards import GPU, card

CLAIM = ClaimId("team", "cards", "uid-1")
DEVICES = {f"gpu-{number}": Device(card(number), GPU) for number in range(3)}


def stored(*results: dict[str, Any], **allocation: Any) -> dict[str, Any]:
    found = [{"driver": "gpu.birentech.com", "pool": "node-7", **each} for each in results]
    return {
        "metadata": {"uid": "uid-1"},
        "status": {"allocation": {"devices": {"results": found, **allocation}}},
    }


def one(request: str, device: str, **more: Any) -> dict[str, Any]:
    return {"request": request, "device": device, **more}


def claimed(claim: dict[str, Any]) -> tuple[ClaimDevice, ...]:
    return tuple(each.of(CLAIM.uid) for each in allocated_of(claim, CLAIM, "node-7"))


def spec_for(
    claim: dict[str, Any],
    devices: Mapping[str, Device] = DEVICES,
    host: HostFacts = HostFacts(),  # noqa: B008 - frozen
) -> Spec | None:
    return spec_of(claimed(claim), devices, host)


def file_of(claim: dict[str, Any]) -> ClaimFile:
    return ClaimFile(claimed(claim), (1, 1))


def test_each_request_has_its_own_list_of_cards() -> None:
    claim = stored(one("a", "gpu-0"), one("a", "gpu-1"), one("b/half", "gpu-2"))
    allocated = allocated_of(claim, CLAIM, "node-7")
    spec = spec_for(claim, DEVICES, HostFacts(control_node=True))
    assert spec is not None
    assert [each["containerEdits"]["env"] for each in spec["devices"]] == [
        ["BR_PHY_CARDS=card_0,card_1"], ["BR_PHY_CARDS=card_0,card_1"], ["BR_PHY_CARDS=card_2"],
    ]  # fmt: skip
    assert spec["containerEdits"]["deviceNodes"] == [{"path": "/dev/biren-m", "permissions": "rw"}]
    prepared = prepared_of(CLAIM, "node-7", allocated)
    assert prepared[2].request == "b"
    assert prepared[2].cdi_id == f"birentech.com/claim={spec['devices'][2]['name']}"


def test_each_request_has_its_own_indexes() -> None:
    claim = stored(one("a", "gpu-0"), one("a", "gpu-1"), one("b", "gpu-2"))
    spec = spec_of(claimed(claim), DEVICES, HostFacts(), "index")
    assert spec is not None
    variables = [each["containerEdits"]["env"][1] for each in spec["devices"]]
    assert variables == [
        "BIREN_VISIBLE_DEVICES=0,1",
        "BIREN_VISIBLE_DEVICES=0,1",
        "BIREN_VISIBLE_DEVICES=0",
    ]


def test_other_drivers_and_other_pools_are_ignored() -> None:
    claim = stored(one("a", "gpu-0", driver="other"), one("a", "gpu-1", pool="node-8"))
    allocated = allocated_of(claim, CLAIM, "node-7")
    assert allocated == ()
    assert spec_for(claim) is None


def test_a_vfio_group_comes_with_the_container_node_of_vfio() -> None:
    group = {"vfio-9": Device(Card("/dev/vfio/9", 9, functions=("0000:3b:00.1",)), GPU)}
    spec = spec_for(stored(one("a", "vfio-9")), group)
    assert spec is not None
    assert spec["containerEdits"]["deviceNodes"][0]["path"] == "/dev/vfio/vfio"


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ({"metadata": {"uid": "uid-2"}}, "was replaced by another claim with its name"),
        ({"metadata": {"uid": "uid-1"}}, "is not allocated"),
        (
            stored(one("a", "gpu-0"), config=[{"opaque": {"driver": "gpu.birentech.com"}}]),
            "takes no configuration",
        ),
    ],
)
def test_the_error_explains_why_a_claim_cannot_be_prepared(
    claim: dict[str, Any], said: str
) -> None:
    with pytest.raises(ClaimRefused, match=said):
        allocated_of(claim, CLAIM, "node-7")


def test_an_answer_that_is_not_a_claim_is_the_servers_fault() -> None:
    with pytest.raises(ApiUnreachable, match="a claim"):
        allocated_of({"metadata": {"uid": "uid-1"}, "status": []}, CLAIM, "node-7")


def use(claim: dict[str, Any], **how: Any) -> None:
    defaults: dict[str, Any] = {"devices": DEVICES, "taints": {}, "held": {}, "held_by_plugin": {}}
    check_usable(allocated_of(claim, CLAIM, "node-7"), **{**defaults, **how})


SICK = {"gpu-0": DEVICES["gpu-0"].because("3 ECC errors")}
TAINT = {"gpu-0": ({"key": "gpu.birentech.com/ecc", "effect": "NoSchedule"},)}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"devices": {}}, "is not on this node any more"),
        ({"held": {"gpu-0": "uid-9"}}, "still held by the claim with uid uid-9"),
        ({"held_by_plugin": {"gpu-0": "team/old"}}, "still held by pod team/old"),
        ({"devices": SICK, "taints": TAINT}, "is Unhealthy: 3 ECC errors"),
    ],
)
def test_the_error_explains_why_a_card_cannot_be_used_now(how: dict[str, Any], said: str) -> None:
    with pytest.raises(ClaimNotReady, match=said):
        use(stored(one("a", "gpu-0")), **how)


@pytest.mark.parametrize(
    ("toleration", "ok"),
    [
        ({"key": "gpu.birentech.com/ecc", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "gpu.birentech.com/ecc", "value": ""}, True),
        ({"key": "gpu.birentech.com/ecc", "value": "3"}, False),
        ({"key": "gpu.birentech.com/other", "operator": "Exists"}, False),
        ({"operator": "Exists", "effect": "NoExecute"}, False),
    ],
)
def test_a_faulty_card_is_given_to_a_claim_that_tolerates_it(
    toleration: dict[str, str], *, ok: bool
) -> None:
    claim = stored(one("a", "gpu-0", tolerations=[toleration]))
    if ok:
        use(claim, devices=SICK, taints=TAINT)
    else:
        with pytest.raises(ClaimNotReady):
            use(claim, devices=SICK, taints=TAINT)


def test_admin_access_neither_holds_cards_nor_waits_for_them() -> None:
    claim = stored(one("a", "gpu-0", adminAccess=True))
    use(claim, devices=SICK, held={"gpu-0": "uid-9"})
    both = stored(one("a", "gpu-0", adminAccess=True), one("b", "gpu-1"))
    with pytest.raises(ClaimNotReady, match="gpu-1 is still held by the claim with uid uid-9"):
        use(both, held={"gpu-0": "uid-8", "gpu-1": "uid-9"})
    assert held_by({"uid-1": file_of(claim)}, besides="uid-2") == {}


def test_the_devices_of_a_claim_are_read_from_its_file() -> None:
    files = {"uid-1": file_of(stored(one("a", "gpu-0"))), "uid-3": ClaimFile((), (1, 1))}
    assert held_by(files, besides="uid-2") == {"gpu-0": "uid-1"}
    assert held_by(files, besides="uid-1") == {}
    assert str(CLAIM) == "team/cards"
    assert attrs.evolve(CLAIM, uid="x") != CLAIM
