"""The demo: each step of the main job, what the kubelet saw, and how long it took."""

import enum
import logging
import tempfile
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import trio

from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.splits import RESOURCE_OF_SPLIT
from biren_plugin.core.placement.topology import build_topology
from biren_plugin.core.settings import Settings
from biren_plugin.daemon import run_daemon, stop_on_signal
from biren_plugin.device_plugin.kubelet_folder import KUBELET_SOCKET, read_kubelet_folder
from biren_plugin.errors import PluginError
from biren_plugin.host.driver_cards import DriverCardReader
from biren_plugin.host.readers import read_once
from biren_plugin.simulate.host import SimulatedHost
from biren_plugin.simulate.kubelet import SimulatedKubelet, View
from biren_plugin.simulate.printing import print_lines
from biren_plugin.supervise import flatten

_STEP_DEADLINE: Final = 10.0
_LOG_LINES: Final = 40
_LOOKS: Final = 0.2
_RECOVER_AFTER: Final = 0.5
"""Seconds; the defaults of a real node are 1 and 30. A demo should not make people wait."""
_SPLIT_NAMES: Final = {1: "whole", 2: "in halves", 4: "in quarters"}


class StepFailed(PluginError):
    """A step of the demo failed."""


class Outcome(enum.Enum):
    """The end of the demo."""

    RIGHT = enum.auto()
    FAILED = enum.auto()
    STOPPED = enum.auto()
    """Ended by a signal before the last step."""


async def run_story(splits: Mapping[int, int], keep_running: bool) -> Outcome:
    """Run the real daemon on a simulated host with these GPUs, step by step.

    With `keep_running` the node stays, after the last step, until SIGINT or SIGTERM. Raises `StepFailed`
    if the simulated node cannot be created.
    """
    daemon_log = _keep_log()
    failures: list[Exception] = []
    finished = False
    with tempfile.TemporaryDirectory(prefix="br-gpu-") as folder:
        try:
            async with trio.open_nursery() as nursery:
                stay = trio.CancelScope()
                await nursery.start(
                    stop_on_signal, lambda: (stay if finished else nursery.cancel_scope).cancel()
                )
                story = _Story(nursery, Path(folder), splits, daemon_log)
                await story.run()
                if keep_running:
                    finished = True
                    story.print_places()
                    with stay:
                        await trio.sleep_forever()
                await story.stop()
                finished = True
                nursery.cancel_scope.cancel()
        except* (PluginError, OSError) as group:
            failures += flatten(group)
    if failures:
        print_lines(f"\nFAILED: {failures[0]}", "The end of the daemon's log:", *daemon_log)
        return Outcome.FAILED
    print_lines("\nEvery step succeeded." if finished else "\nStopped before the end.")
    return Outcome.RIGHT if finished else Outcome.STOPPED


class _Story:
    def __init__(
        self, nursery: trio.Nursery, folder: Path, splits: Mapping[int, int], log: Sequence[str]
    ) -> None:
        self.host = SimulatedHost(folder / "host")
        self.host.add_gpus(splits)
        self._topology = build_topology(read_once(DriverCardReader(self.host.root)).cards)
        self.plugins = folder / "device-plugins"
        self.plugins.mkdir()
        self._status_dir = folder / "status"
        self._nursery = nursery
        self._splits = splits
        self._log = log
        self._kubelet = SimulatedKubelet(self.plugins)
        self._kubelet_life = trio.CancelScope()
        self._daemon_life = trio.CancelScope()
        self._daemon_ended = trio.Event()
        self._expected: dict[str, set[str]] = {}
        for gpu, parts in splits.items():
            cards = self._expected.setdefault(RESOURCE_OF_SPLIT[parts], set())
            cards.update(self.host.cards_of(gpu))
        print_lines(
            f"A simulated node: {_describe(splits)}. No hardware, no root, no Kubernetes.",
            f"A card returns to service after {_RECOVER_AFTER:g} s without a fault here; on a real node "
            f"after {Settings().recover_after:g} s (--recover-after).",
        )

    def print_places(self) -> None:
        """Print where the node is, and the commands that show it from another terminal."""
        root, status = f"--host-root {self.host.root}", f"--status-dir {self._status_dir}"
        print_lines(
            "\nIt keeps running until Ctrl-C.",
            f"  host: {self.host.root}",
            f"  kubelet: {self.plugins}",
            "In another terminal:",
            f"  br-gpu-device-plugin status {status}",
            f"  br-gpu-device-plugin devices {root}",
            f"  br-gpu-device-plugin doctor {root} --device-plugin-dir {self.plugins} {status}",
        )

    async def start_kubelet(self) -> None:
        self._kubelet_life = trio.CancelScope()
        await self._nursery.start(_run_kubelet, self._kubelet_life, self._kubelet)

    async def run(self) -> None:
        """Run all steps except the last, `stop`. Raises `StepFailed`."""
        await self.start_kubelet()
        settings = Settings(
            host_root=self.host.root,
            device_plugin_dir=self.plugins,
            pod_resources_dir=self.plugins.parent / "pod-resources",
            health_interval=_LOOKS,
            recover_after=_RECOVER_AFTER,
            status_dir=self._status_dir,
        )
        self._nursery.start_soon(self._run_daemon, settings)
        await self.step("the daemon registers", self._registered)
        await self.step("it lists its devices", self._listed)
        await self.step("a pod is given cards", self._pod_starts)
        resource, cards = sorted(self._expected.items())[-1]
        card = max(cards, key=_number)
        await self.step(f"{card} is pulled", lambda: self._card_is_pulled(resource, card))
        await self.step(f"{card} is put back", lambda: self._card_is_put_back(card))
        await self.step(
            f"{card} stops answering on its bus", lambda: self._card_is_silent(resource, card)
        )
        await self.step(f"{card} answers again", lambda: self._card_answers(card))
        gpu, parts = max(self._splits.items())
        new = 1 if parts > 1 else 4
        await self.step(
            f"GPU {gpu} is re-split: {_SPLIT_NAMES[parts]} -> {_SPLIT_NAMES[new]}",
            lambda: self._re_split(gpu, new),
        )
        await self.step("the kubelet restarts", self._kubelet_restarts)

    async def _run_daemon(self, settings: Settings) -> None:
        with self._daemon_life:
            await run_daemon(settings)
        self._daemon_ended.set()

    async def step(self, title: str, do: Callable[[], Awaitable[Iterable[str]]]) -> None:
        """Run one step and print it. Raises `StepFailed`."""
        started = trio.current_time()
        lines: Iterable[str] = ()
        with trio.move_on_after(_STEP_DEADLINE) as waiting:
            lines = await do()
        took = (trio.current_time() - started) * 1000
        if waiting.cancelled_caught:
            raise StepFailed(
                f"{title}: not seen in {_STEP_DEADLINE:g} s; the kubelet has {self._kubelet.view.latest}"
            )
        print_lines(f"\n{took:7.1f} ms  {title}", *(f"            {line}" for line in lines))

    async def _registered(self) -> list[str]:
        view = await self._kubelet.view.wait_for(
            lambda view: view.devices.keys() >= self._expected.keys()
        )
        return sorted(view.devices)

    async def _listed(self) -> list[str]:
        return _counts(await self._wait_for(self._expected))

    async def _wait_for(self, healthy: Mapping[str, set[str]]) -> View:
        return await self._kubelet.view.wait_for(
            lambda view: all(view.healthy(name) == ids for name, ids in healthy.items())
        )

    async def _pod_starts(self) -> list[str]:
        resource, cards = sorted(self._expected.items())[-1]
        pod = await self._kubelet.admit(resource, min(2, len(cards)))
        names = ",".join(sorted(pod.ids, key=_number))
        if dict(pod.edits.env) != {vendor.CARDS_VARIABLE: names}:
            raise StepFailed(f"the pod holds {names}, but its environment is {pod.edits.env}")
        if not {f"{vendor.NODE_FOLDER}/{name}" for name in pod.ids} <= set(pod.edits.device_nodes):
            raise StepFailed(f"the pod holds {names}, but its nodes are {pod.edits.device_nodes}")
        return [
            f"{len(pod.ids)} of {resource}: {names}",
            *self._reason(pod.ids),
            *(f"{name}={value}" for name, value in pod.edits.env),
            *(f"{path} rw" for path in pod.edits.device_nodes),
        ]

    def _reason(self, ids: Sequence[str]) -> list[str]:
        """Yield a line with the reason for the choice; none for a single card."""
        reason = self._topology.describe(ids)
        return [f"{', '.join(ids)}: {reason}"] if reason else []

    async def _card_is_pulled(self, resource: str, card: str) -> list[str]:
        self.host.pull_node(card)
        return _counts(
            await self._wait_for({**self._expected, resource: self._expected[resource] - {card}})
        )

    async def _card_is_put_back(self, card: str) -> list[str]:
        self.host.put_node_back(card)
        return _counts(await self._wait_for(self._expected))

    async def _card_is_silent(self, resource: str, card: str) -> list[str]:
        self.host.silence(card)
        rest = self._expected[resource] - set(self.host.cards_beside(card))
        counts = _counts(await self._wait_for({**self._expected, resource: rest}))
        return [*counts, *self._said(f"{card} is Unhealthy")]

    async def _card_answers(self, card: str) -> list[str]:
        self.host.unsilence(card)
        counts = _counts(await self._wait_for(self._expected))
        return [*counts, *self._said(f"{card} is Healthy again")]

    async def _re_split(self, gpu: int, parts: int) -> list[str]:
        old = RESOURCE_OF_SPLIT[self._splits[gpu]]
        self._expected[old] -= set(self.host.cards_of(gpu))
        new = self._expected.setdefault(RESOURCE_OF_SPLIT[parts], set())
        new.update(self.host.split(gpu, parts))
        await self._wait_for(self._expected)
        # Replaced cards are retired in two steps: Unhealthy, then off the list.
        view = await self._kubelet.view.wait_for(
            lambda view: all(
                {device.id for device in devices} <= self._expected[resource]
                for resource, devices in view.devices.items()
            )
        )
        return [*_counts(view), *self._said("left the list")]

    def _said(self, words: str) -> list[str]:
        """Return the daemon's last log line with these words."""
        return next(([line.strip()] for line in reversed(self._log) if words in line), [])

    async def _kubelet_restarts(self) -> list[str]:
        self._kubelet_life.cancel()
        await self.start_kubelet()
        return _counts(await self._wait_for(self._expected))

    async def stop(self) -> None:
        """Run the last step. Raises `StepFailed`."""
        await self.step("the daemon stops", self._daemon_stops)

    async def _daemon_stops(self) -> list[str]:
        self._daemon_life.cancel()
        await self._wait_for({resource: set() for resource in self._expected})
        await self._daemon_ended.wait()  # the kubelet sees its streams end before it has tidied up
        left = sorted(read_kubelet_folder(self.plugins).sockets.keys() - {KUBELET_SOCKET})
        if left:
            raise StepFailed(f"the daemon left {left} behind")
        return ["its sockets are gone"]


async def _run_kubelet(
    life: trio.CancelScope, kubelet: SimulatedKubelet, *, task_status: trio.TaskStatus[None]
) -> None:
    with life:
        await kubelet.run(task_status=task_status)


def _number(card: str) -> int:
    return int(card.removeprefix(vendor.CARD_PREFIX))


def _counts(view: View) -> list[str]:
    lines = []
    for resource, devices in sorted(view.devices.items()):
        unhealthy = [device.id for device in devices if not device.healthy]
        line = f"{resource}: {len(devices) - len(unhealthy)} of {len(devices)} healthy"
        lines.append(line + (f"; Unhealthy: {', '.join(unhealthy)}" if unhealthy else ""))
    return lines


def _describe(splits: Mapping[int, int]) -> str:
    numbers = Counter(splits.values())
    parts = [f"{numbers[parts]} {_SPLIT_NAMES[parts]}" for parts in sorted(numbers)]
    return f"{len(splits)} GPU{'s' if len(splits) > 1 else ''}, {', '.join(parts)}"


def _keep_log() -> deque[str]:
    """Keep the daemon's log in memory: the terminal shows the demo."""
    lines: deque[str] = deque(maxlen=_LOG_LINES)

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"  {record.levelname} {self.format(record)}")

    logging.basicConfig(level=logging.INFO, handlers=[Keeper()], format="%(message)s", force=True)
    return lines
