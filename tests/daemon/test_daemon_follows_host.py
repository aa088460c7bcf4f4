"""Whatever happens to host and kubelet, after a quiet time the kubelet's lists match the host."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.support.clocks import patience
from tests.support.host_truth import Devices
from tests.support.node_in_process import NodeInProcess

GPUS = 3
CAN_BE_SILENT = 2
"""GPUs, so that one is left: if all fell silent the probe would be the suspect."""
RATE = 20
"""Seconds of the daemon in one of ours: settling and retiring take it 7."""
STEADY = 5.0
"""Seconds of the daemon for which they must stay so."""


@attrs.frozen
class Step:
    """One event; `which` chooses its target, modulo the number of targets."""

    kind: str
    which: int = 0
    parts: int = 1
    pause: float = 0.0
    """Seconds of the daemon until the next step."""


KINDS = [
    "pull node",
    "put node back",
    "spoil node",
    "silence",
    "unsilence",
    "split",
    "remove card",
    "remove GPU",
    "restart kubelet",
    "stop kubelet",
    "delete socket",
    "make folder anew",
]

steps = st.lists(
    st.builds(
        Step,
        kind=st.sampled_from(KINDS),
        which=st.integers(0, 7),
        parts=st.sampled_from([1, 2, 4]),
        pause=st.sampled_from([0.0, 0.0, 0.2, 1.1, 3.5]),
    ),
    min_size=1,
    max_size=8,
)


class Trouble:
    """Takes steps on a node; a step without a target does nothing."""

    def __init__(self, node: NodeInProcess, nursery: trio.Nursery) -> None:
        self._node = node
        self._host = node.host
        self._nursery = nursery

    async def take(self, step: Step) -> None:
        """Take the step, then let its pause pass."""
        cards = self._node.cards()
        sockets = sorted(self._node.plugins.glob("birentech*.sock"))
        gpu = step.which % GPUS
        match step.kind:
            case "pull node" if cards:
                self._host.pull_node(cards[step.which % len(cards)])
            case "put node back" if cards:
                self._put_back(cards[step.which % len(cards)])
            case "spoil node" if cards:
                node = self._node.node_of(cards[step.which % len(cards)])
                node.unlink(missing_ok=True)
                node.touch()
            case "silence" if some := self._host.cards_of(step.which % CAN_BE_SILENT):
                self._host.silence(some[0])
            case "unsilence" if some := self._host.cards_of(step.which % CAN_BE_SILENT):
                self._host.unsilence(some[0])
            case "split":
                self._host.split(gpu, step.parts)
            case "remove card" if cards:
                self._host.remove_card(cards[step.which % len(cards)])
            case "remove GPU" if self._host.cards_of(gpu):
                self._host.remove_gpu(gpu)
            case "restart kubelet":
                await self._node.start_kubelet(self._nursery)
            case "stop kubelet":
                self._node.stop_kubelet()
            case "delete socket" if sockets:
                sockets[step.which % len(sockets)].unlink(missing_ok=True)
            case "make folder anew":
                self._node.stop_kubelet()
                self._node.make_folder_anew()
        await trio.sleep(step.pause)

    def _put_back(self, card: str) -> None:
        self._host.pull_node(card)
        self._host.put_node_back(card)


def agree(node: NodeInProcess) -> bool:
    """Return whether the kubelet's lists match the host."""
    seen, truth = node.seen(), node.truth()
    if node.settled() and all(node.host.cards_of(gpu) for gpu in range(GPUS)):
        return seen == truth
    # The old cards of a GPU that is not settled, or gone, stay listed and Unhealthy: rules 3 and 4
    # of core/inventory/keeper.
    return healthy(seen) == healthy(truth)


def healthy(devices: Devices) -> set[tuple[str, str]]:
    """Return resource and id of each device that a pod may get."""
    return {
        (resource, id_)
        for resource, states in devices.items()
        for id_, is_healthy in states.items()
        if is_healthy
    }


async def live_through(happening: Sequence[Step]) -> None:
    with tempfile.TemporaryDirectory(prefix="br") as folder:
        node = NodeInProcess(Path(folder))
        node.host.add_gpus({0: 1, 1: 2, 2: 4})
        async with node.running() as nursery:
            await node.sees(node.truth())
            trouble = Trouble(node, nursery)
            for step in happening:
                await trouble.take(step)
            if not node.kubelet_runs:
                await node.start_kubelet(nursery)
            with trio.move_on_after(patience()):
                await node.kubelet.view.wait_for(lambda _view: agree(node))
                await trio.sleep(STEADY)
            assert agree(node), f"the kubelet sees {node.seen()}, the host has {node.truth()}"


# No shrinking: each example takes as long as the daemon takes to settle.
@settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(steps)
def test_the_kubelets_last_list_matches_the_hosts_last_state(happening: list[Step]) -> None:
    trio.run(live_through, happening, clock=MockClock(rate=RATE))
