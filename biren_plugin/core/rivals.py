"""Tells a kubelet that goes from a rival: another plugin that registers the same resource.

kubelet 1.36 takes the last registration and ends the client that was there before; two plugins that
both register again end each other's streams for ever. A kubelet that stops ends streams too, but
then nobody answers on its socket.
"""

from collections import deque
from typing import Final

ENDS: Final = 3
WITHIN: Final = 120.0
"""So many streams, ended by a kubelet that lives, in so many seconds."""


class RivalWatch:
    """What one resource remembers from life to life of its subtree."""

    def __init__(self) -> None:
        self._ends: deque[float] = deque(maxlen=ENDS)
        self._kubelet: object = None

    def stream_ended(self, now: float, kubelet: object) -> bool:
        """Takes note of a stream that a living kubelet ended; whether a rival is the likely cause.

        `kubelet` is whatever tells one life of the kubelet from the next: a restart clears the slate.
        """
        if kubelet != self._kubelet:
            self._kubelet = kubelet
            self._ends.clear()
        self._ends.append(now)
        return len(self._ends) == ENDS and now - self._ends[0] <= WITHIN
