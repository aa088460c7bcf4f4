"""Dynamic Resource Allocation: the driver's sockets, its registration, its rights, and the cluster.

Without `--offer-by dra` there is no row but one for claims that an earlier driver left, and nothing of the API
server's client is imported.
"""

import ssl
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

import trio

from biren_plugin.commands.doctor.diagnosis import Check, failure, ok, some_of, unknown, warning
from biren_plugin.commands.doctor.directory_checks import registry_directory
from biren_plugin.commands.show_status import ask
from biren_plugin.core.parse.api_shapes import Shape, shaped
from biren_plugin.core.parse.vendor import DRA_DRIVER
from biren_plugin.core.settings import Settings
from biren_plugin.errors import ApiError, ApiNotFound, SocketUnusable, StatusUnavailable

RIGHTS: Final = (
    ("get", "resourceclaims"), ("list", "resourceslices"), ("watch", "resourceslices"),
    ("create", "resourceslices"), ("update", "resourceslices"), ("delete", "resourceslices"),
)  # fmt: skip
"""What the driver does, as a role names it."""
EVENT_RIGHTS: Final = (("create", "events"), ("patch", "events"))
"""What the daemon does with Events about its node, in namespace `default`; with `--hami` too."""
_GROUP: Final = "resource.k8s.io"
_VERSION: Final[Shape] = {"gitVersion?": str}
_REVIEW: Final[Shape] = {"status?": {"allowed?": bool}}
_CHECK_DEADLINE: Final = 5.0
_ROLE: Final = "see manifests/components/dra/rights.yaml"
CORRECT_NAME: Final = (
    "correct --node-name: it is the name of the Node object, as `kubectl get nodes` shows it"
)


def check_dra(settings: Settings) -> Iterator[Check]:
    """Yield rows of what the driver needs, and of what it has come to."""
    if settings.offer_by != "dra":
        yield from _left_claims(settings)
        return
    yield from _sockets(settings)
    yield from trio.run(_cluster, settings)
    yield from _driver(settings)


def check_node_events(settings: Settings) -> Iterator[Check]:
    """Yield a row for the Events about the node, in the modes that write them."""
    if settings.offer_by == "dra" or settings.hami:
        yield trio.run(_event_rights, settings)


async def _event_rights(settings: Settings) -> Check:
    from biren_plugin.cluster.api_server import ApiServer
    from biren_plugin.cluster.credentials import load_from
    from biren_plugin.core.event_objects import NAMESPACE

    name = "node events"
    try:
        async with ApiServer(load_from(settings.kubeconfig)) as api:
            call = partial(api.call, deadline=_CHECK_DEADLINE)
            missing = [
                " ".join(right)
                for right in EVENT_RIGHTS
                if not await is_allowed(call, *right, group="", namespace=NAMESPACE)
            ]
    except (ApiError, ssl.SSLError) as error:
        return warning(name, f"{error}", "verdicts are not shown as Events of the node")
    if missing:
        role = "dra" if settings.offer_by == "dra" else "hami"
        seen = f"the account may not: {', '.join(missing)}"
        advice = f"verdicts are not shown as Events of the node; see manifests/components/{role}/rights.yaml"
        return warning(name, seen, advice)
    return ok(name, "verdicts that change are shown by `kubectl describe node`")


def _sockets(settings: Settings) -> Iterator[Check]:
    from biren_plugin.dra.driver_sockets import sockets_of

    try:
        sockets = sockets_of(settings.kubelet_root, "00000000-0000-0000-0000-000000000000")
    except SocketUnusable as error:
        yield failure("DRA sockets", f"{error}", "a Unix socket's path has 107 bytes at most")
        return
    yield registry_directory(sockets.registration.parent, sockets.plugin.parent)


async def _cluster(settings: Settings) -> Sequence[Check]:
    from biren_plugin.cluster.api_server import ApiServer, path_of_node
    from biren_plugin.cluster.credentials import load_from

    name = "API server"
    try:
        async with ApiServer(load_from(settings.kubeconfig)) as api:
            call = partial(api.call, deadline=_CHECK_DEADLINE)
            answer = shaped(await call("GET", "/version"), _VERSION, "a version")
            version = answer.get("gitVersion", "of unknown version")
            try:
                await call("GET", f"/apis/{_GROUP}/v1")
            except ApiNotFound:
                seen = f"Kubernetes {version} serves no {_GROUP}/v1"
                return [failure(name, seen, "DRA needs Kubernetes 1.34 or newer")]
            missing = [right for right in RIGHTS if not await is_allowed(call, *right)]
            if settings.kubeconfig is not None:  # in a pod, the token has the name
                await call("GET", path_of_node(settings.node_name))
    except ApiNotFound as error:
        return [failure(name, f"{error}", CORRECT_NAME)]
    except (ApiError, ssl.SSLError) as error:
        return [failure(name, f"{error}", "the driver publishes nothing and prepares no new claim")]
    if missing:
        seen = ", ".join(" ".join(right) for right in missing)
        return [failure(name, f"Kubernetes {version}; the account may not: {seen}", _ROLE)]
    return [ok(name, f"Kubernetes {version}; the account has each right")]


async def is_allowed(
    call: Any, verb: str, resource: str, group: str = _GROUP, namespace: str = ""
) -> bool:
    """Return whether the account has a right. Raises `ApiError`."""
    asked = {"group": group, "resource": resource, "verb": verb, "namespace": namespace}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    answer = await call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return bool(shaped(answer, _REVIEW, "a review").get("status", {}).get("allowed"))


def _driver(settings: Settings) -> Iterator[Check]:
    name = "DRA driver"
    try:
        document = ask(settings.status_dir)
    except StatusUnavailable as error:
        yield unknown(name, f"{error}")
        return
    driver = document["dra"]
    if driver is None:
        advice = "start the daemon with the flags that doctor gets"
        yield failure(name, "the running daemon offers cards through the device plugin", advice)
        return
    if driver["refusal"] is not None:
        yield failure(name, f"the kubelet refused {DRA_DRIVER}: {driver['refusal']}", "")
    elif not driver["registered"]:
        advice = "does the kubelet run, and is --kubelet-root its --root-dir?"
        yield failure(name, f"the kubelet has not registered {DRA_DRIVER}", advice)
    else:
        used = ", ".join(driver["used_services"]) or "nothing yet"
        yield ok(name, f"{DRA_DRIVER} is registered; the kubelet has called {used}")
    yield _slices(driver)
    yield _claims(document["claims"])


def _slices(driver: dict[str, Any]) -> Check:
    name = "ResourceSlices"
    seen = f"{driver['stored_devices']} of {driver['wanted_devices']} devices stored"
    if driver["forbidden"]:
        return failure(name, f"{seen}; refused: {', '.join(driver['forbidden'])}", _ROLE)
    if driver["trouble"] is not None:
        return failure(name, f"{seen}: {driver['trouble']}", "see the daemon's log")
    if driver["dropped_fields"]:
        fields = ", ".join(driver["dropped_fields"])
        advice = (
            "a feature gate of the cluster is off; `taints` need DRADeviceTaints (on since 1.36)"
        )
        return warning(name, f"{seen}; the API server drops: {fields}", advice)
    if not driver["wanted_devices"]:
        return warning(name, "no device to publish", "the rows about cards say why")
    return ok(name, seen)


def _left_claims(settings: Settings) -> Iterator[Check]:
    """Yield a row if pods hold claims of the driver on a node that offers cards through the device plugin."""
    try:
        document = ask(settings.status_dir)
    except StatusUnavailable:
        return
    if document["dra"] is None and document["claims"]:
        held = some_of([_name(each) for each in document["claims"]])
        advice = (
            "their pods stay Terminating until the driver is back to release them: "
            "docs/migrate-to-dra.md, section Back"
        )
        yield warning("claims of DRA", f"still prepared: {held}", advice)


def _claims(claims: list[dict[str, Any]]) -> Check:
    name = "claims"
    missing = [f"{_name(each)}: no CDI file" for each in claims if not each["has_file"]]
    unknown_ones = [
        f"{_name(each)}: unknown to the kubelet" for each in claims if not each["claim"]
    ]
    if missing:
        advice = "the daemon writes it again; until then its containers cannot restart"
        return warning(name, some_of(missing), advice)
    if unknown_ones:
        advice = (
            "being prepared, or left over; removed when the kubelet has not known it for 5 minutes"
        )
        return warning(name, some_of(unknown_ones), advice)
    return ok(name, f"{len(claims)} prepared")


def _name(claim: dict[str, Any]) -> str:
    known = claim["claim"]
    return f"{known['namespace']}/{known['name']}" if known else f"uid {claim['uid']}"
