"""Compares the CDI files of claims with what the kubelet believes prepared.

1. A claim's file holds its cards from the moment it is written: the kubelet learns of it later.
2. A file that the kubelet misses is lost only when two reads in a row show that: during Unprepare it is
   gone a moment before the kubelet forgets the claim.
3. A file that the kubelet does not know is stale after `STALE_AFTER` in which the kubelet answered: a
   claim may just be prepared, and a restarting kubelet lists no pods at first.
4. While the kubelet does not answer, its last belief stands, and no file grows stale.
"""

from typing import Final

from biren_plugin.core.observed import ClaimFile, ClaimFiles, Claims, ClaimsSeen, KubeletView

STALE_AFTER: Final = 300.0
"""Seconds; the kubelet itself releases claims of pods that are gone once a minute."""


class ClaimComparison:
    """Takes files and views in turn. Times are seconds of any clock that only goes forward."""

    def __init__(self) -> None:
        self._believed: Claims = {}
        self._missing: frozenset[str] = frozenset()
        self._unknown_since: dict[tuple[str, ClaimFile], float] = {}

    def update(self, files: ClaimFiles, view: KubeletView | None, now: float) -> ClaimsSeen:
        """What claims hold. `files` were read before `view` was asked for; None: no answer."""
        if view is None or view.claims is None:
            self._unknown_since.clear()
            self._missing = frozenset()
            return ClaimsSeen(self._believed, files)
        self._believed = view.claims
        usable = {uid for uid, file in files.items() if file.devices}
        missing = frozenset(view.claims.keys() - usable)
        lost, self._missing = missing & self._missing, missing
        unknown = {(uid, file) for uid, file in files.items() if uid not in view.claims}
        self._unknown_since = {each: self._unknown_since.get(each, now) for each in unknown}
        stale = {
            uid for (uid, _), since in self._unknown_since.items() if now - since >= STALE_AFTER
        }
        return ClaimsSeen(
            view.claims, files, lost, frozenset(stale), view.unprepared,
            now if lost or stale else None,
        )  # fmt: skip
