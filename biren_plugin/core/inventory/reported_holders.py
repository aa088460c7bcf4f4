"""What pods hold by the lists of the kubelets.

A device moves one way:

1. *Shown*: the last answer shows it.
2. *Unconfirmed*: a kubelet showed it, and the next one, which has just started, does not yet. Its pod holds it
   while it is listed or may still be listed. If the kubelet kept its record, a listed pod holds only what is
   shown, and a pod that is not listed yet matters no more, unless the kubelet restarts before it lists it.
3. *Lost*: that kubelet did not keep its record, and its start is over. No kubelet knows of the device any more,
   so its pod holds it until it is gone.

A device that is shown again has returned, and a container that is shown with other devices was started again
and holds no former one.
"""

from collections.abc import Mapping

import attrs

from biren_plugin.core.inventory.kubelet_start import KubeletStart
from biren_plugin.core.observed import NO_HOLDERS, DeviceKey, Holder, Holders, KubeletView


class ReportedHolders:
    """Takes the kubelets' answers, and notes when another kubelet answers."""

    def __init__(self) -> None:
        self.holders: Holders = NO_HOLDERS
        """Shown, unconfirmed and lost ones; those are marked as forgotten whose pod is listed without them."""
        self._shown: Holders = NO_HOLDERS
        self._unconfirmed: Holders = NO_HOLDERS
        self._lost: Holders = NO_HOLDERS

    @property
    def is_unsettled(self) -> bool:
        """Return whether some are unconfirmed."""
        return bool(self._unconfirmed)

    def is_shown(self, key: DeviceKey) -> bool:
        """Return whether the last answer shows the device."""
        return key in self._shown

    def confirmed_by(self, shown: Holders) -> bool:
        """Return whether devices that a kubelet did not allocate itself prove that it kept its record."""
        unlisted = {key: each for key, each in self._unconfirmed.items() if not each.forgotten}
        return any(
            key in unlisted and _pod(unlisted[key]) == _pod(each) for key, each in shown.items()
        )

    def lose_unconfirmed(self) -> None:
        """The present kubelet will not show them any more."""
        unconfirmed = {
            key: attrs.evolve(each, forgotten=True) for key, each in self._unconfirmed.items()
        }
        self._lost = {**self._lost, **unconfirmed}
        self._unconfirmed = NO_HOLDERS

    def doubt_shown(self) -> None:
        """Another kubelet answers from now on."""
        self._unconfirmed = {**self._unconfirmed, **self._shown}

    def update(self, view: KubeletView, start: KubeletStart | None) -> Holders:
        """Take the next answer; `start` is of the kubelet that answers, None if it is over.

        Returns those that a pod holds.
        """
        self._shown = view.holders or NO_HOLDERS
        self._lost = self._still_held(self._lost, view, start)
        unconfirmed = {
            key: attrs.evolve(each, forgotten=_pod(each) in view.pods)
            for key, each in self._still_held(self._unconfirmed, view, start).items()
        }
        believed = start is None or start.kept_record
        if believed:
            unconfirmed = {key: each for key, each in unconfirmed.items() if not each.forgotten}
        self._unconfirmed = unconfirmed
        self.holders = {**self._lost, **unconfirmed, **self._shown}
        return {**self._lost, **self._shown} if believed else self.holders

    def _still_held(
        self, holders: Holders, view: KubeletView, start: KubeletStart | None
    ) -> Mapping[DeviceKey, Holder]:
        """Return those that `view` does not show, and whose pod is not gone."""
        if not holders:
            return NO_HOLDERS
        started_again = set(self._shown.values())
        return {
            key: each
            for key, each in holders.items()
            if key not in self._shown
            and attrs.evolve(each, forgotten=False) not in started_again
            and (
                _pod(each) in view.pods
                or (start is not None and start.may_list(_pod(each), view.at))
            )
        }


def _pod(holder: Holder) -> tuple[str, str]:
    return holder.namespace, holder.pod
