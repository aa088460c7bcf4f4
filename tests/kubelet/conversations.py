"""One table of conversations between a kubelet and plugins, for the real kubelet and the test kubelet.

What the real one did is kept in `conversations.json`; `nox -s cluster -- --write-conversations` writes
it again. Steps are words: the plugins are `ours` and `rival`, devices are single letters.
"""

import json
import time
from pathlib import Path
from typing import Any, Final, Protocol

from tests.kubelet.partner import Partner

RECORDED: Final = Path(__file__).with_name("conversations.json")
Steps = tuple[str, ...]
CONVERSATIONS: Final[dict[str, Steps]] = {
    "a plugin registers": ("register ours", "admit 1", "admit 1"),
    "it registers again": ("register ours", "register ours", "offer ours a", "admit 1"),
    "its stream ends": ("register ours", "end ours", "admit 1", "register ours", "admit 1"),
    "it leaves": ("register ours", "leave ours", "admit 1", "register ours", "admit 1"),
    "a rival registers once": ("register ours", "register rival", "admit 1", "offer ours a b c"),
    "a rival registers and leaves": (
        "register ours", "register rival", "leave rival", "admit 1", "offer ours a b c",
        "register ours", "admit 1",
    ),
    "a rival registers and ends its stream": (
        "register ours", "register rival", "end rival", "admit 1", "register ours", "admit 1",
    ),
    "the earlier of two leaves": (
        "register ours", "register rival", "leave ours", "admit 1", "offer rival x y", "admit 1",
    ),
    "two take turns": (
        "register ours", "register rival", "register ours", "leave rival", "admit 1",
    ),
    "a list shrinks": ("register ours", "offer ours a", "admit 1", "offer ours", "admit 1"),
    "a device turns unhealthy": ("register ours", "offer ours a B", "admit 2", "admit 1"),
    "a held device leaves the list": (
        "register ours", "offer ours a", "admit 1", "offer ours b", "admit 1", "admit 1",
    ),
    "the kubelet restarts": (
        "register ours", "admit 1", "restart", "admit 1", "register ours", "admit 1", "admit 1",
    ),
    "the kubelet loses its checkpoint": (
        "register ours",
        "admit 1",
        "restart without checkpoint",
        "register ours",
        "admit 1",
    ),
    "a plugin names a socket that is not there": ("register nobody",),
}  # fmt: skip
"""An upper-case letter is a device that is unhealthy."""
OFFERED: Final = {"ours": "a b", "rival": "x"}
_STABLE: Final = 0.4
"""Seconds without a change, after which a step has had its effect."""
_DEADLINE: Final = 10.0


class Played(Protocol):
    """A kubelet that a conversation can be played to."""

    directory: Path
    resource: str

    def believed(self) -> list[str]:
        """The healthy ids, sorted; empty while it does not answer."""
        ...

    def admit(self, number: int, count: int) -> str:
        """What the container found in BR_PHY_CARDS, or the refusal."""
        ...

    def restart(self, *, keeps_checkpoint: bool) -> None:
        """Ends it and starts the next one."""
        ...


def play(kubelet: Played, steps: Steps, expected: list[Any] | None = None) -> list[Any]:
    """What is seen after each step: the step's outcome, what is believed, streams of each plugin.

    With `expected`, what differs from it is given `_DEADLINE` to become equal.
    """
    plugins = {
        name: Partner(kubelet.directory, name, kubelet.resource)
        for name in ("ours", "rival", "nobody")
    }
    for name, ids in OFFERED.items():
        plugins[name].offer(_devices(ids.split()))
    seen = []
    try:
        for number, step in enumerate(steps):
            outcome = _take(kubelet, plugins, number, *step.split())
            wanted = expected[number] if expected is not None else None
            seen.append(_settled(kubelet, plugins, [step, outcome], wanted))
    finally:
        for plugin in plugins.values():
            plugin.leave()
    return seen


def resource_of(name: str) -> str:
    """The resource of a conversation: one of its own, since a kubelet never forgets a resource."""
    return f"conversations.test/{name.replace(' ', '-')}"


def recorded() -> dict[str, list[Any]]:
    """What the real kubelet did, by conversation."""
    answers: dict[str, list[Any]] = json.loads(RECORDED.read_text())
    return answers


def _take(kubelet: Played, plugins: dict[str, Partner], number: int, verb: str, *words: str) -> str:
    match verb:
        case "register" if words == ("nobody",):
            return plugins["nobody"].register_without_serving()
        case "register":
            return plugins[words[0]].register()
        case "offer":
            plugins[words[0]].offer(_devices(words[1:]))
        case "end":
            plugins[words[0]].end_streams()
        case "leave":
            plugins[words[0]].leave()
        case "admit":
            return kubelet.admit(number, int(words[0]))
        case "restart":
            kubelet.restart(keeps_checkpoint=not words)
        case unknown:
            raise ValueError(f"no such step: {unknown}")
    return ""


def _devices(ids: "list[str] | tuple[str, ...]") -> dict[str, str]:
    return {id_.lower(): "Unhealthy" if id_.isupper() else "Healthy" for id_ in ids}


def _settled(
    kubelet: Played, plugins: dict[str, Partner], taken: list[str], expected: list[Any] | None
) -> list[Any]:
    """The step with what is seen once it no longer changes, or once it is as expected and stays so."""
    started = changed = time.monotonic()
    last: list[Any] = []
    while True:
        streams = {name: plugins[name].open_streams for name in OFFERED}
        now = [*taken, kubelet.believed(), streams]
        if now != last:
            last, changed = now, time.monotonic()
        stable = time.monotonic() - changed > _STABLE
        late = time.monotonic() - started > _DEADLINE
        if late or (stable and expected in (None, now)):
            return now
        time.sleep(0.02)
