"""How soon the kubelet knows of a fault, and has all lists again after a restart."""

import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.calls import EIGHT_WHOLE
from tests.bench.figures import Figure, spread
from tests.bench.rounds import rounds
from tests.brml.on_host import HostLibrary
from tests.support.simulated_node import Node

THREE_RESOURCES = {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 2, 6: 4, 7: 4}
GPU = "birentech.com/gpu"
SICK = "card_7"
_WITHOUT_INOTIFY = (sys.executable, "-m", "tests.bench.without_inotify")
_AT_ONCE = 90.0
"""Seconds of what is measured on three nodes at the same time."""


def measure_faults() -> list[Figure]:
    """From a fault to the list that shows it, with the default intervals.

    What takes an interval of the daemon anyway is measured on three nodes at the same time.
    """
    with Node(EIGHT_WHOLE) as node:
        node.start_daemon("--recover-after=0")
        pulled = _pull(node, rounds(80, 50))
    with ThreadPoolExecutor() as threads:
        silent = threads.submit(_silences, rounds(40, _AT_ONCE))
        unseen = threads.submit(_pulls_without_inotify, rounds(10, _AT_ONCE))
        reported = threads.submit(_reports, rounds(8, _AT_ONCE))
    return [
        *spread("device node gone to list", [pulled], 100, 200),
        *spread("PCI function silent to list", [silent.result()], 600, 1200),
        *spread("library says critical to list", [reported.result()], None, 6000),
        *spread("device node gone to list, without inotify", [unseen.result()], None, 1200),
    ]


def _silences(turns: Iterable[int]) -> list[float]:
    with Node(EIGHT_WHOLE) as node:
        node.start_daemon("--recover-after=0")
        return _silence(node, turns)


def _pulls_without_inotify(turns: Iterable[int]) -> list[float]:
    with Node(EIGHT_WHOLE, *_WITHOUT_INOTIFY) as node:
        node.start_daemon("--recover-after=0")
        return _pull(node, turns)


def _reports(turns: Iterable[int]) -> list[float]:
    with Node(EIGHT_WHOLE) as node, tempfile.TemporaryDirectory(prefix="br") as folder:
        library = HostLibrary(node.host.root, Path(folder))
        node.start_daemon("--recover-after=0")
        try:
            return _report(node, library, turns)
        finally:
            library.state.close()


def measure_restarts() -> list[Figure]:
    """From a new kubelet's socket to complete lists of three resources."""
    return [
        *spread("kubelet restart to complete lists", [_restart(rounds(60, 42))], 50, 80),
        *spread(
            "kubelet restart to complete lists, without inotify",
            [_restart(rounds(10, 12), *_WITHOUT_INOTIFY)],
            None,
            2000,
        ),
    ]


def _restart(turns: Iterable[int], *program: str) -> list[float]:
    times = []
    with Node(THREE_RESOURCES, *program) as node:
        node.start_daemon()
        for round_ in turns:
            sleep_out_of_step(round_)
            mark = node.kubelet.mark()
            node.kubelet.restart()
            listening = node.kubelet.wait_for_event("listening", since=mark)
            times.append((node.wait_for_lists(mark) - float(listening["at"])) * 1000)
    return times


def _pull(node: Node, turns: Iterable[int]) -> list[float]:
    host = node.host
    return _fault_to_list(
        node, turns, lambda: host.pull_node(SICK), lambda: host.put_node_back(SICK)
    )


def _silence(node: Node, turns: Iterable[int]) -> list[float]:
    host = node.host
    return _fault_to_list(node, turns, lambda: host.silence(SICK), lambda: host.unsilence(SICK))


def _report(node: Node, library: HostLibrary, turns: Iterable[int]) -> list[float]:
    number = int(SICK.removeprefix("card_"))
    say = library.state.set_card
    return _fault_to_list(node, turns, lambda: say(number, status=2), lambda: say(number, status=0))


def _fault_to_list(
    node: Node, turns: Iterable[int], harm: Callable[[], None], mend: Callable[[], None]
) -> list[float]:
    times = []
    for round_ in turns:
        mark = node.kubelet.mark()
        sleep_out_of_step(round_)
        harmed = time.monotonic()
        harm()
        event = node.kubelet.wait_for_list(GPU, unhealthy={SICK}, since=mark)
        times.append((float(event["at"]) - harmed) * 1000)
        mark = node.kubelet.mark()
        mend()
        node.kubelet.wait_for_list(GPU, healthy=len(EIGHT_WHOLE), since=mark)
    return times


def sleep_out_of_step(round_: int) -> None:
    """The daemon scans once a second: faults must come at any moment of that second."""
    time.sleep((round_ * 0.618) % 1)  # real processes in real time: the moment is what varies
