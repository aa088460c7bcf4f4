"""Asks the kubelet which pod holds which card, and posts it: a source of the survey.

1. Without an answer, what was told stands for `FORGET_AFTER`: a kubelet that restarts gives no card
   away meanwhile. Then it is forgotten, and said once: a pod that has gone must not keep a card for
   ever.
2. It is asked every `INTERVAL`, and every `SOONER` while something hangs on the answer: when the node
   shows other devices, while a pod holds one that the node does not show, and without an answer.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.core.inventory.physical_gpus import shown_devices
from biren_plugin.core.observed import NO_HOLDERS, Holder, Holders, Observed
from biren_plugin.core.parse.vendor import DOMAIN
from biren_plugin.errors import PodResourcesUnknown, reason_of
from biren_plugin.notice import Notice
from biren_plugin.wire.pod_resources import list_holders

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
    notice = Notice()
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
                text = (
                    f"cannot tell which pod holds which card: {error}. "
                    "After a re-split a card name may be reused while its pod still runs"
                )
                notice.begin("holders_unknown", text, reason=str(error))
        else:
            told_at = trio.current_time()
            notice.end("holders_known", "the kubelet reports which pod holds which card")
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


async def _ask(socket: Path) -> dict[tuple[str, str], Holder]:
    try:
        stream = await trio.open_unix_socket(socket)
    except FileNotFoundError as error:
        raise PodResourcesUnknown(f"no {socket} (is its directory mounted?)") from error
    except OSError as error:
        raise PodResourcesUnknown(
            f"{reason_of(error)} on {socket} (is the kubelet running?)"
        ) from error
    return await list_holders(stream, DOMAIN, DEADLINE)
