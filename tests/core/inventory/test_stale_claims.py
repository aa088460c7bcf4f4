"""Which claims hold cards: by their files, by the kubelet's belief, and where the two differ for long."""

import pytest

from biren_plugin.core.inventory.stale_claims import STALE_AFTER, ClaimComparison
from biren_plugin.core.observed import ClaimFile, ClaimUse, Holder, KubeletView
from biren_plugin.core.parse.claim_device import ClaimDevice

DEVICE = ClaimDevice("uid-1", "cards", "gpu-0")
FILE = ClaimFile((DEVICE,), (1, 1))
USE = ClaimUse("team", "cards", (DEVICE,), Holder("team", "pod"))
KNOWN = KubeletView(0.0, {}, claims={"uid-1": USE})
NOTHING = KubeletView(0.0, {}, claims={})
SILENT = KubeletView(0.0)


@pytest.mark.parametrize(
    "device", [DEVICE, ClaimDevice("uid-1", "cards", "gpu-0", admin=True)], ids=["own", "admin"]
)
def test_a_name_leads_back_to_the_device(device: ClaimDevice) -> None:
    assert ClaimDevice.parse(device.cdi_id) == ClaimDevice.parse(device.name) == device


@pytest.mark.parametrize("name", ["", "a", "a:b", "a::c", "a:b:c:d", "a:b:c:admin:e", "x/y=a:b"])
def test_a_name_that_is_not_ours_is_no_device(name: str) -> None:
    assert ClaimDevice.parse(name) is None


def test_a_file_holds_its_card_before_the_kubelet_knows_the_claim() -> None:
    seen = ClaimComparison().update({"uid-1": FILE}, NOTHING, 0.0)
    assert seen.holder_of("gpu-0") == "uid-1"
    assert seen.holder_of("gpu-1") is None


def test_a_file_that_vanished_is_lost_at_the_second_look_and_not_during_unprepare() -> None:
    keeper = ClaimComparison()
    assert not keeper.update({}, KNOWN, 0.0).lost
    seen = keeper.update({}, KNOWN, 1.0)
    assert (seen.lost, seen.differed_at) == (frozenset({"uid-1"}), 1.0)
    seen = keeper.update({}, NOTHING, 2.0)
    assert (seen.lost, seen.differed_at) == (frozenset(), None)


@pytest.mark.parametrize("files", [{}, {"uid-1": ClaimFile((), (1, 1))}], ids=["gone", "garbage"])
def test_the_kubelets_belief_holds_a_card_whose_file_is_no_good(
    files: dict[str, ClaimFile],
) -> None:
    keeper = ClaimComparison()
    keeper.update(files, KNOWN, 0.0)
    seen = keeper.update(files, KNOWN, 1.0)
    assert seen.lost == {"uid-1"}
    assert seen.holder_of("gpu-0") == "uid-1"


def test_admin_access_holds_nothing() -> None:
    file = ClaimFile((ClaimDevice("uid-1", "cards", "gpu-0", admin=True),), (1, 1))
    assert ClaimComparison().update({"uid-1": file}, NOTHING, 0.0).holder_of("gpu-0") is None


def test_a_file_is_stale_only_after_the_kubelet_has_not_known_it_for_long() -> None:
    keeper = ClaimComparison()
    files = {"uid-1": FILE}
    assert not keeper.update(files, NOTHING, 0.0).stale
    assert not keeper.update(files, NOTHING, STALE_AFTER - 1).stale
    seen = keeper.update(files, NOTHING, STALE_AFTER)
    assert (seen.stale, seen.differed_at) == (frozenset({"uid-1"}), STALE_AFTER)
    assert seen.holder_of("gpu-0") is None


@pytest.mark.parametrize("between", [SILENT, KNOWN], ids=["silent", "known"])
def test_the_wait_begins_again_when_the_kubelet_was_silent_or_knew_the_claim(
    between: KubeletView,
) -> None:
    keeper = ClaimComparison()
    files = {"uid-1": FILE}
    keeper.update(files, NOTHING, 0.0)
    keeper.update(files, between, 1.0)
    assert not keeper.update(files, NOTHING, STALE_AFTER).stale


def test_the_wait_begins_again_for_a_file_that_was_written_again() -> None:
    keeper = ClaimComparison()
    keeper.update({"uid-1": FILE}, NOTHING, 0.0)
    assert not keeper.update({"uid-1": ClaimFile((DEVICE,), (1, 2))}, NOTHING, STALE_AFTER).stale


def test_what_a_silent_kubelet_believed_last_stands() -> None:
    keeper = ClaimComparison()
    keeper.update({}, KNOWN, 0.0)
    assert keeper.update({}, SILENT, 1.0).holder_of("gpu-0") == "uid-1"
