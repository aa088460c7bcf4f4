"""The checks of HAMi's scheduler: what it knows of the node, and without `--hami` whether it is in the cluster.

Without access to the API server nothing is known of a HAMi that gets no reports, and there is no row.
"""

import ssl
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import trio

from biren_plugin.commands.doctor.diagnosis import Check, failure, ok, unknown, warning
from biren_plugin.commands.doctor.dra_checks import CORRECT_NAME, is_allowed
from biren_plugin.commands.show_status import ask
from biren_plugin.core.parse.splits import WHOLE_GPU
from biren_plugin.core.settings import Settings
from biren_plugin.errors import ApiError, ApiNotFound, StatusUnavailable

RIGHTS: Final = (
    ("get", "nodes"), ("list", "nodes"), ("watch", "nodes"), ("patch", "nodes"),
    ("get", "pods"), ("list", "pods"), ("patch", "pods"),
)  # fmt: skip
"""What the mode does, as a role names it."""
_ROLE: Final = "see manifests/components/hami/rights.yaml"
_CHECK_DEADLINE: Final = 5.0


def check_hami(settings: Settings) -> Iterator[Check]:
    """Yield rows of what HAMi knows of the node, as far as that can be known."""
    if settings.hami:
        yield _reports(settings)
        yield trio.run(_rights, settings)
    elif settings.kubeconfig is not None and settings.offer_by != "dra":
        yield trio.run(_presence, settings)


def _reports(settings: Settings) -> Check:
    """Return the row of the running daemon's reports."""
    name = "HAMi"
    try:
        hami: dict[str, Any] | None = ask(settings.status_dir)["hami"]
    except StatusUnavailable as error:
        return unknown(name, f"{error}")
    if hami is None:
        advice = "start the daemon with the flags that doctor gets"
        return failure(name, "the running daemon does not report to HAMi", advice)
    if not hami["registered"]:
        why = hami["trouble"] or "no whole GPU was reported"
        return failure(name, f"HAMi does not know the node's cards: {why}", _ROLE)
    lock = f"locked for {hami['locked_for']}" if hami["locked_for"] else "not locked"
    seen = f"cards reported at {hami['last_report']}, node {lock}"
    if hami["mismatches"]:
        advice = "docs/hami.md, section What to know about pods"
        return warning(name, f"{seen}; {hami['mismatches'][-1]}", advice)
    return ok(name, seen)


async def _rights(settings: Settings) -> Check:
    from biren_plugin.cluster.api_server import ApiServer
    from biren_plugin.cluster.credentials import load_from
    from biren_plugin.hami.node_objects import NodeObjects

    name = "HAMi's API access"
    try:
        async with ApiServer(load_from(settings.kubeconfig)) as api:
            call = partial(api.call, deadline=_CHECK_DEADLINE)
            missing = [
                " ".join(right) for right in RIGHTS if not await is_allowed(call, *right, group="")
            ]
            if not missing:
                await NodeObjects(api, settings.node_name).node()
    except ApiNotFound as error:
        return failure(name, f"{error}", CORRECT_NAME)
    except (ApiError, ssl.SSLError) as error:
        return failure(name, f"{error}", "cards are not reported, and HAMi's lock stays")
    if missing:
        return failure(name, f"the account may not: {', '.join(missing)}", _ROLE)
    return ok(name, "the account has each right")


async def _presence(settings: Settings) -> Check:
    from biren_plugin.cluster.api_server import ApiServer
    from biren_plugin.cluster.credentials import load_from
    from biren_plugin.core.hami.annotations import CARDS, HANDSHAKE, LEAVING, annotation
    from biren_plugin.hami.node_objects import NodeObjects

    name = "HAMi"
    try:
        async with ApiServer(load_from(settings.kubeconfig)) as api:
            node = await NodeObjects(api, settings.node_name).node()
    except (ApiError, ssl.SSLError) as error:
        return unknown(name, f"{error}")
    if annotation(node, HANDSHAKE) in ("", LEAVING[HANDSHAKE]):
        return ok(name, "no HAMi scheduler with a Biren backend has asked for this node's cards")
    known = "lists cards that nobody serves" if annotation(node, CARDS) else "knows no cards"
    return warning(
        name,
        f"HAMi 2.10 or newer places the pods that ask for {WHOLE_GPU}, and {known} on this node",
        "run with --hami, or take this resource out of HAMi's chart, as docs/hami.md says",
    )
