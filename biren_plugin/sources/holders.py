"""Asks the kubelet which pod holds which card, and posts it: a source of the survey.

1. Without an answer, what was told stands for `FORGET_AFTER`: a kubelet that restarts gives no card
   away meanwhile. Then it is forgotten, and said once: a pod that has gone must not keep a card for
   ever.
2. It is asked every `INTERVAL`, and every `SOONER` while something hangs on the answer: when the node
   shows other devices, while a pod holds one that the node does not show, and without an answer.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.core.inventory.splits import shown_devices
from biren_plugin.core.observed import NO_HOLDERS, Holder, Holders, Observed
from biren_plugin.core.parse.vendor import DOMAIN
from biren_plugin.errors import PodResourcesUnknown
from biren_plugin.wire.pod_resources import list_holders

log = logging.getLogger(__name__)

SOCKET: Final = "kubelet.sock"
INTERVAL: Final = 10.0
"""Seconds: each question costs two milliseconds."""
SOONER: Final = 1.0
FORGET_AFTER: Final = 60.0
DEADLINE: Final = 5.0


async def ask_holders(
    folder: Path,
    observed: Board[Observed],
    on_turn: Callable[[float], None] = lambda _seconds: None,
) -> None:
    """Posts who holds what, again and again; None while that cannot be known.

    `on_turn` gets the seconds that each question took.
    """
    trouble = ""
    holders: Holders | None = None
    told_at = trio.current_time()
    while True:
        shown = _shown(observed.latest or Observed())
        began = trio.current_time()
        wait = INTERVAL
        try:
            holders = await _ask(folder / SOCKET)
        except PodResourcesUnknown as error:
            if holders is not None and trio.current_time() - told_at < FORGET_AFTER:
                wait = SOONER
            else:
                holders = None
                _say(error, trouble)
                trouble = str(error)
        else:
            told_at = trio.current_time()
            if trouble:
                log.info("the kubelet tells which pod holds what", extra={"event": "holders_known"})
            trouble = ""
        before = observed.latest or Observed()
        if holders != before.holders:
            observed.post(attrs.evolve(before, holders=holders))
        on_turn(trio.current_time() - began)
        if not shown.issuperset(holders or NO_HOLDERS):
            wait = SOONER
        with trio.move_on_after(wait):
            await observed.wait_for(lambda seen, shown=shown: _shown(seen) != shown)  # type: ignore[misc]
            await trio.sleep(SOONER)


def _shown(seen: Observed) -> frozenset[tuple[str, str]]:
    return shown_devices(seen.snapshot.cards if seen.snapshot is not None else ())


def _say(error: PodResourcesUnknown, said: str) -> None:
    if str(error) != said:
        log.warning(
            "%s: a card that a pod holds may leave with a new split, and its name be given to "
            "another pod, before that pod has gone",
            error,
            extra={"event": "holders_unknown", "reason": str(error)},
        )


async def _ask(socket: Path) -> dict[tuple[str, str], Holder]:
    try:
        stream = await trio.open_unix_socket(socket)
    except FileNotFoundError as error:
        raise PodResourcesUnknown(
            f"nobody tells which pod holds what: there is no {socket}; "
            "is that folder mounted into the container?"
        ) from error
    except OSError as error:
        raise PodResourcesUnknown(
            f"nobody tells which pod holds what: {socket}: {error.strerror or error}; "
            "does the kubelet run?"
        ) from error
    return await list_holders(stream, DOMAIN, DEADLINE)
