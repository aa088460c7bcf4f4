"""Keeps a card from a second container while a kubelet that has restarted may not know of the first.

The kubelet is asked who holds what when it wants such a card, and not before: a registration need not wait
for the answer, and a kubelet that kept its checkpoint never wants one.
"""

from collections.abc import Sequence
from typing import Final

import trio

from biren_plugin.core.admission import RETRY, PreferenceRequest
from biren_plugin.core.inventory.removal_delay import ALLOCATE_DEADLINE
from biren_plugin.daemon_state import DaemonState
from biren_plugin.errors import NotReady
from biren_plugin.records import frozen

ASK_DEADLINE: Final = ALLOCATE_DEADLINE - 0.5
"""Seconds for the kubelet's answer."""


@frozen
class DoubtfulCards:
    """The cards of `resource` that a container may hold, by what `state` remembers."""

    resource: str
    state: DaemonState

    def left_out(self, request: PreferenceRequest) -> PreferenceRequest:
        """Return the request without cards that a container may hold, if enough are left."""
        certain = tuple(
            id_ for id_ in request.available if id_ in request.must_include or not self._doubt(id_)
        )
        return request._replace(available=certain) if len(certain) >= request.size else request

    async def admit(self, ids: Sequence[str]) -> None:
        """Ask the kubelet who holds what if one of `ids` may be held. Raises `NotReady` unless nobody holds them."""
        if not any(map(self._doubt, ids)):
            return
        await self.state.ask_kubelet(ASK_DEADLINE, with_holders=True)
        if doubts := [*filter(None, map(self._doubt, ids))]:
            raise NotReady(f"{'; '.join(doubts)}; {RETRY}")

    def _doubt(self, id_: str) -> str:
        return self.state.holding.doubt(self.resource, id_, trio.current_time())
