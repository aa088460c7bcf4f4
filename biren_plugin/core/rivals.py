"""Whether a registration still counts, judged from what the kubelet and its directory show.

1. The kubelet sends every Allocate to the plugin that registered a resource last. The stream of an
   earlier one stays open, so an open stream does not show that a registration counts.
2. Three things show that it does not: the kubelet believes other devices than were sent, `ANSWERS`
   times in a row; a pod holds a card that this plugin did not allocate; a socket appeared after the
   registration, and its name is a Biren plugin's, or the kubelet does not report its devices.
3. A rival is left alone: two plugins that both register again would do so forever. The registration is
   lost, and worth renewing, once no process serves the rival's sockets, or the kubelet considers no device
   healthy, as it does when the stream of the last plugin has ended. A possible rival is dismissed once
   the kubelet reports the right devices.
4. Without a socket that may be a rival's, the registration is lost at once.

Times are seconds of any clock that only goes forward.
"""

from collections import deque
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from biren_plugin.core.model import DeviceList
from biren_plugin.core.observed import NO_HOLDERS, Holder, KubeletView
from biren_plugin.core.parse.vendor import MODULE
from biren_plugin.records import frozen

ENDS: Final = 3
WITHIN: Final = 120.0
"""This many streams ended by a live kubelet, or this many lost registrations, within this many seconds."""
SETTLE: Final = 1.0
"""Seconds in which a kubelet processes a list, and starts to report a pod that got a card."""
ANSWERS: Final = 2

Sockets = Mapping[str, object]
"""By file name: an identity that distinguishes a file from the next one with the same name."""


class Sent(NamedTuple):
    """The last list that was written to the kubelet's stream."""

    devices: DeviceList
    at: float


@frozen
class Rival:
    """Another plugin has taken the resource, or may have."""

    sockets: tuple[str, ...]
    """Sockets by file name, one of which is the rival's."""
    why: str
    """The evidence: a clause."""
    certain: bool = True

    def describe(self, resource: str) -> str:
        """Return a line for people, with advice."""
        where = f"{', '.join(self.sockets)} in the kubelet's device-plugins directory"
        if self.certain:
            return (
                f"{resource}: another plugin has taken it, {where} ({self.why}), and its pods get that "
                "plugin's answers; remove that plugin, and this one registers again by itself"
            )
        return (
            f"{resource}: another plugin may have taken it, {where} ({self.why}); remove that plugin if "
            "it offers Biren GPUs, else mount the kubelet's pod-resources directory, which shows it"
        )


@frozen
class Lost:
    """The registration does not count, and there is no rival."""

    why: str


class Seen(NamedTuple):
    """Everything by which a registration is judged at one moment."""

    foreign: Sockets
    """Sockets in the directory that are neither the kubelet's nor this plugin's."""
    sent: Sent | None = None
    view: KubeletView | None = None
    unserved: Collection[str] = ()
    """The `foreign` sockets that were tried and have no listener."""


class RivalMemory:
    """What one resource remembers across restarts of its subtree."""

    def __init__(self) -> None:
        self.neighbours: Sockets = {}
        """The foreign sockets that existed when the last registration was sent."""
        self.known_names: set[str] = set()
        """Names of all foreign sockets so far: such a plugin reappears after each restart of the kubelet."""
        self._ends: deque[float] = deque(maxlen=ENDS)
        self._losses: deque[float] = deque(maxlen=ENDS)
        self._kubelet: object = None
        self._allocated: set[str] = set()
        self._holders: dict[str, str] = {}

    def registering(self, foreign: Sockets) -> None:
        """Note that a registration is sent now: the plugins that are there have registered before."""
        self.neighbours = dict(foreign)
        self.known_names |= foreign.keys()

    def stream_ended(self, now: float, kubelet: object) -> bool:
        """Note that a live kubelet ended a stream; return whether a rival is the likely cause.

        `kubelet` identifies one life of the kubelet: a restart clears the count.
        """
        if kubelet != self._kubelet:
            self._kubelet = kubelet
            self._ends.clear()
        self._ends.append(now)
        return len(self._ends) == ENDS and now - self._ends[0] <= WITHIN

    def lost(self, now: float) -> bool:
        """Note a lost registration; return whether that happens again and again."""
        self._losses.append(now)
        return len(self._losses) == ENDS and now - self._losses[0] <= WITHIN

    def allocated(self, ids: Collection[str]) -> None:
        """Note that this plugin allocated these cards: a pod will hold them."""
        self._allocated.update(ids)

    def unexplained(
        self, holders: Mapping[str, Holder], *, learning: bool
    ) -> list[tuple[str, Holder]]:
        """Return held cards that this plugin did not allocate, with their pods.

        `learning`: devices held now were allocated before this plugin could know.
        """
        found = []
        before, self._holders = self._holders, {}
        for id_, pod in holders.items():
            if learning or before.get(id_) == str(pod) or id_ in self._allocated:
                self._holders[id_] = str(pod)
                self._allocated.discard(id_)
            else:
                found.append((id_, pod))
        return found


class RegistrationJudge:
    """Judges one registration of `resource`, which counts at `registered_at`."""

    def __init__(self, resource: str, memory: RivalMemory, registered_at: float) -> None:
        self._resource = resource
        self._memory = memory
        self._registered_at = registered_at
        self._learning = True
        self._judged_at = registered_at
        self._rival: Rival | None = None
        self._differences = 0
        self._believed: frozenset[str] = frozenset()

    @property
    def is_doubtful(self) -> bool:
        """Return whether the kubelet's next answer may change the judgement."""
        return self._differences > 0

    def judge(self, seen: Seen, now: float) -> Rival | Lost | None:
        """Return the state of the registration; None: it counts."""
        evidence = self._evidence(seen)
        silent = seen.view is not None and seen.view.allocatable is None
        if self._rival is not None and not self._rival.certain and not silent:
            self._rival = None  # a kubelet that reports devices has the last word
        if self._rival is not None:
            return self._rival_left(self._rival, seen) or self._rival
        if self._is_stopped(seen):
            return Lost("the kubelet counts no device of it as healthy although it was sent some")
        suspects = tuple(
            sorted(
                name
                for name, socket in seen.foreign.items()
                if self._memory.neighbours.get(name) != socket
            )
        )
        if evidence:
            if not suspects and not self._memory.lost(now):
                return Lost(evidence)
            if not (suspects or seen.foreign):
                return Lost(evidence)
            self._rival = Rival(suspects or tuple(sorted(seen.foreign)), evidence)
        elif named := tuple(name for name in suspects if MODULE in name.lower()):
            self._rival = Rival(named, "its name is a Biren plugin's")
        elif silent and (
            news := tuple(name for name in suspects if name not in self._memory.known_names)
        ):
            self._rival = Rival(news, "the kubelet does not report its devices", certain=False)
        return self._rival

    def _evidence(self, seen: Seen) -> str:
        """Return a clause about the kubelet's report; empty: it agrees, or there is no new report."""
        view = seen.view
        if view is None or view.at <= self._judged_at:
            return ""
        self._judged_at = view.at
        return self._difference(view, seen.sent) or self._strange_holder(view)

    def _difference(self, view: KubeletView, sent: Sent | None) -> str:
        if view.allocatable is None or sent is None or view.at < sent.at + SETTLE:
            self._differences = 0
            return ""
        self._believed = view.allocatable.get(self._resource, frozenset())
        if self._believed in _beliefs(sent.devices):
            self._differences = 0
            return ""
        self._differences += 1
        if self._differences < ANSWERS:
            return ""
        healthy, _ = _beliefs(sent.devices)
        return f"the kubelet offers {_cards(self._believed)} and was sent {_cards(healthy)}"

    def _strange_holder(self, view: KubeletView) -> str:
        holders = {
            id_: pod
            for (resource, id_), pod in (view.holders or NO_HOLDERS).items()
            if resource == self._resource
        }
        strange = self._memory.unexplained(holders, learning=self._learning)
        if view.holders is not None and view.at >= self._registered_at + SETTLE:
            self._learning = False
        if not strange:
            return ""
        id_, pod = strange[0]
        return f"pod {pod} holds {id_}, which this plugin did not allocate"

    def _is_stopped(self, seen: Seen) -> bool:
        if self._differences < ANSWERS or self._believed or seen.sent is None:
            return False
        return any(device.healthy for device in seen.sent.devices.devices)

    def _rival_left(self, rival: Rival, seen: Seen) -> Lost | None:
        names = ", ".join(rival.sockets)
        if not any(name in seen.foreign and name not in seen.unserved for name in rival.sockets):
            return Lost(f"no process serves {names} any more")
        if self._is_stopped(seen):
            return Lost("the kubelet has stopped the endpoint of the other plugin")
        return None


def _beliefs(devices: DeviceList) -> tuple[frozenset[str], frozenset[str]]:
    """Return what a kubelet may report after it was sent `devices`: the healthy ones; older kubelets all."""
    every = frozenset(device.id for device in devices.devices)
    return frozenset(device.id for device in devices.devices if device.healthy), every


def _cards(ids: Collection[str]) -> str:
    return (
        f"{len(ids)} ({', '.join(sorted(ids)[:3])}{', …' if len(ids) > 3 else ''})" if ids else "0"
    )
