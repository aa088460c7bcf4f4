"""What a claim's containers get: turns an allocated claim into CDI devices, or a refusal with a reason.

1. The answer for a claim is always the same: CDI names hold the claim's uid, the request and the device.
2. The claim's CDI file is the only record of a claim: the names in it show which devices it holds.
3. Only one claim holds a card; admin access does not hold cards, and does not keep others from them.
4. `BR_PHY_CARDS` of a CDI device lists all cards of its *request*: each container gets the devices of
   its own requests, and the last edit of a variable wins.

Source: dra/v1 of the kubelet, resource.k8s.io/v1, CDI 0.5.0.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from biren_plugin.core.cdi.spec import VERSION, Spec, edits_of
from biren_plugin.core.container_edits import VisibleDevices, card_links, environment, shared_nodes
from biren_plugin.core.model import Device, HostFacts
from biren_plugin.core.observed import ClaimFiles
from biren_plugin.core.parse.api_shapes import Object, Shape, shaped
from biren_plugin.core.parse.card import Card, NodeState
from biren_plugin.core.parse.claim_device import ClaimDevice
from biren_plugin.core.parse.vendor import CLAIM_KIND, DRA_DRIVER
from biren_plugin.errors import ClaimNotReady, ClaimRefused
from biren_plugin.records import frozen

_TOLERATION: Final[Shape] = {"key?": str, "operator?": str, "value?": str, "effect?": str}
_RESULT: Final[Shape] = {
    "request": str, "driver": str, "pool": str, "device": str,
    "adminAccess?": bool, "tolerations?": [_TOLERATION],
}  # fmt: skip
_CONFIG: Final[Shape] = {"opaque?": {"driver?": str}}
CLAIM: Final[Shape] = {
    "metadata": {"uid": str},
    "status?": {"allocation?": {"devices?": {"results?": [_RESULT], "config?": [_CONFIG]}}},
}
"""The shape of a claim."""
_NO_NODE: Final = (NodeState.MISSING, NodeState.OTHER)


@frozen
class ClaimId:
    """A claim as the kubelet names it."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@frozen
class Allocated:
    """One device of a claim's allocation."""

    request: str
    """The request's own name, without a subrequest: `cards` for `cards/whole`."""
    device: str
    """The device's name in the pool."""
    admin: bool = False
    """Whether the claim has admin access, for monitoring: the device may be held by another claim."""
    tolerations: tuple[Mapping[str, Any], ...] = ()

    def of(self, uid: str) -> ClaimDevice:
        """The same as a device of the claim with that uid."""
        return ClaimDevice(uid, self.request, self.device, self.admin)


@frozen
class PreparedDevice:
    """One device of a prepared claim, as reported to the kubelet."""

    request: str
    pool: str
    device: str
    cdi_id: str
    """`birentech.com/claim=<uid>:<request>:<device>`."""


@frozen
class DeviceHealth:
    """The health of one device, as pods show it in their status."""

    pool: str
    device: str
    message: str
    """Why the device is unhealthy; empty: healthy."""


def path_of_claim(namespace: str, name: str) -> str:
    """Where the API server has the claim."""
    namespace, name = quote(namespace, safe=""), quote(name, safe="")
    return f"/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims/{name}"


def prepared_of(asked: ClaimId, pool: str, allocated: Iterable[Allocated]) -> list[PreparedDevice]:
    """Return the answer for the claim."""
    return [
        PreparedDevice(each.request, pool, each.device, each.of(asked.uid).cdi_id)
        for each in allocated
    ]


def allocated_of(claim: Object, asked: ClaimId, pool: str) -> tuple[Allocated, ...]:
    """Return the devices of this driver and pool that are allocated to the claim.

    Raises `ClaimRefused` for another claim of the same name, or a claim without an allocation, and
    `ApiUnreachable` for an object that is not a claim.
    """
    shaped(claim, CLAIM, "a claim")
    if claim["metadata"]["uid"] != asked.uid:
        raise ClaimRefused(
            f"claim {asked} was replaced by another claim with its name; delete the pod"
        )
    allocation = claim.get("status", {}).get("allocation")
    if allocation is None:
        raise ClaimRefused(f"claim {asked} is not allocated; delete the pod")
    devices = allocation.get("devices", {})
    for each in devices.get("config") or ():
        if each.get("opaque", {}).get("driver") == DRA_DRIVER:
            raise ClaimRefused(
                f"claim {asked}: {DRA_DRIVER} takes no configuration; remove its `config`"
            )
    return tuple(
        Allocated(
            request=each["request"].partition("/")[0],
            device=each["device"],
            admin=bool(each.get("adminAccess")),
            tolerations=tuple(each.get("tolerations") or ()),
        )
        for each in devices.get("results") or ()
        if each["driver"] == DRA_DRIVER and each["pool"] == pool
    )


def held_by(files: ClaimFiles, besides: str) -> dict[str, str]:
    """Return the uid of the claim that holds each device, by device name, without claim `besides`."""
    return {
        each.device: uid
        for uid, file in files.items()
        if uid != besides
        for each in file.devices
        if not each.admin
    }


def check_usable(
    allocated: Iterable[Allocated],
    devices: Mapping[str, Device],
    taints: Mapping[str, Sequence[Object]],
    held: Mapping[str, str],
    held_by_plugin: Mapping[str, str],
) -> None:
    """Check that every device may be given to the claim.

    `devices` and `taints` are by device name; `held` is the result of `held_by`; `held_by_plugin` names the
    pod that got a device through the device plugin API. Raises `ClaimNotReady` if the obstacle may pass by
    itself, else `ClaimRefused`.
    """
    for each in allocated:
        device = devices.get(each.device)
        if device is None:
            raise ClaimNotReady(
                f"{each.device} is not on this node any more; delete the pod so that it is scheduled again"
            )
        if not device.card.present or device.card.node in _NO_NODE:
            raise ClaimNotReady(
                f"{each.device} ({device.id}) has no device node that a container could open; "
                "delete the pod so that it is scheduled again"
            )
        if each.admin:
            continue
        if each.device in held:
            raise ClaimNotReady(
                f"{each.device} is still held by the claim with uid {held[each.device]}; "
                "wait until its pod has ended"
            )
        if each.device in held_by_plugin:
            raise ClaimNotReady(
                f"{each.device} is still held by pod {held_by_plugin[each.device]}, which got it "
                "through the device plugin; wait until that pod has ended"
            )
        if not device.healthy and not _tolerated(taints.get(each.device, ()), each.tolerations):
            raise ClaimNotReady(
                f"{each.device} ({device.id}) is Unhealthy: {'; '.join(device.reasons)}; "
                "delete the pod so that it is scheduled again"
            )


def _tolerated(taints: Sequence[Object], tolerations: Sequence[Mapping[str, Any]]) -> bool:
    counted = [taint for taint in taints if taint["effect"] != "None"]
    return bool(counted) and all(
        any(_tolerates(each, taint) for each in tolerations) for taint in counted
    )


def _tolerates(toleration: Mapping[str, Any], taint: Object) -> bool:
    """Return whether the toleration matches the taint, by the scheduler's rules."""
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("key") not in (None, "", taint["key"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("value", "") == taint.get("value", ""))


def spec_of(
    claimed: Sequence[ClaimDevice],
    devices: Mapping[str, Device],
    host: HostFacts,
    visible: VisibleDevices = "none",
) -> Spec | None:
    """Return the CDI file of a claim with these devices; None for a claim without a device of this driver.

    `devices` by name; each of `claimed` must be among them.
    """
    if not claimed:
        return None
    cards: dict[str, list[Card]] = {}
    for each in claimed:
        cards.setdefault(each.request, []).append(devices[each.device].card)
    spec: Spec = {
        "cdiVersion": VERSION,
        "kind": CLAIM_KIND,
        "devices": [
            {
                "name": each.name,
                "containerEdits": edits_of(
                    [devices[each.device].card.path],
                    links=card_links([devices[each.device].card]),
                    env=environment(cards[each.request], visible),
                ),
            }
            for each in claimed
        ],
    }
    groups = any(devices[each.device].card.is_group for each in claimed)
    common = edits_of(
        [*(["/dev/vfio/vfio"] if groups else []), *shared_nodes(host)], host.mounts, host.links
    )
    if common:
        spec["containerEdits"] = common
    return spec
