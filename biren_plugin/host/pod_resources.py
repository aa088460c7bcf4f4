"""Asks the kubelet which pod holds which card, and posts it: a source of the survey."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.core.observed import Holder, Observed
from biren_plugin.errors import PodResourcesUnknown
from biren_plugin.wire.pod_resources import list_holders

log = logging.getLogger(__name__)

SOCKET: Final = "kubelet.sock"
INTERVAL: Final = 10.0
"""Seconds between questions while the cards stay what they are: each costs two milliseconds."""
SOONER: Final = 1.0
"""Seconds between questions while a pod holds a card that is to go, or when the cards changed."""
DEADLINE: Final = 5.0
_VENDOR: Final = "birentech.com"


async def ask_holders(
    folder: Path,
    observed: Board[Observed],
    turned: Callable[[float], None] = lambda _seconds: None,
) -> None:
    """Posts who holds what, again and again; says once when that cannot be known.

    `turned` is told how long each question took. What was known before is forgotten then: a pod that has gone must not keep a card for ever.
    """
    trouble = ""
    while True:
        began = trio.current_time()
        try:
            holders = await _ask(folder / SOCKET)
        except PodResourcesUnknown as error:
            holders = None
            if str(error) != trouble:
                log.warning(
                    "%s: a card that a pod holds may leave with a new split, and its name be given "
                    "to another pod, before that pod has gone",
                    error,
                    extra={"event": "holders_unknown", "reason": str(error)},
                )
            trouble = str(error)
        else:
            if trouble:
                log.info(
                    "the kubelet tells again which pod holds what", extra={"event": "holders_known"}
                )
            trouble = ""
        before = observed.latest or Observed()
        if holders != before.holders:
            observed.post(attrs.evolve(before, holders=holders))
        turned(trio.current_time() - began)
        await _until_due(observed, before.card_names)


async def _ask(socket: Path) -> dict[tuple[str, str], Holder]:
    try:
        stream = await trio.open_unix_socket(socket)
    except OSError as error:
        raise PodResourcesUnknown(
            f"nobody tells which pod holds what: {socket}: {error.strerror}; "
            "is that folder mounted into the container?"
        ) from error
    return await list_holders(stream, _VENDOR, DEADLINE)


async def _until_due(observed: Board[Observed], cards: frozenset[str]) -> None:
    """After `INTERVAL`, and after `SOONER` once the node shows other cards than these."""
    with trio.move_on_after(INTERVAL):
        await observed.wait_for(lambda seen: seen.card_names != cards)
        await trio.sleep(SOONER)
