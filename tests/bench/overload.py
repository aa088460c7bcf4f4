"""What must not cost the node much: a very long answer of the kubelet, and a log without a reader."""

import os
import time
from pathlib import Path

from tests.bench.calls import EIGHT_WHOLE, ratio
from tests.bench.figures import Figure, spread
from tests.bench.load import load
from tests.kubelet.pod_resources import PodResources
from tests.kubelet.protos import load as load_protos
from tests.support.simulated_node import Node

_ANSWER_MIB = 15
_ANSWERS = 3
_REFUSALS = 10_000
_ROUNDS = 10
_CPU_IDS = b"\x1a\x20" + bytes(range(32))
"""Of a container with whole cores: a field that the daemon's schema leaves out."""
_PATIENCE = 20.0


def measure_overload() -> list[Figure]:
    """Both on nodes of eight cards."""
    return [*_measure_answer(), *_measure_unread_log()]


def _measure_answer() -> list[Figure]:
    """The greatest resident memory after three such answers, and without any."""
    peaks = []
    for answer in (None, _answer()):
        with Node(EIGHT_WHOLE) as node:
            pods = PodResources(node.plugins.parent / "pod-resources", dict)
            pods.say_instead(answer)
            pods.start()
            try:
                node.start_daemon()
                for _ in range(_ANSWERS):
                    assert pods.asked.acquire(timeout=_PATIENCE)
                time.sleep(2)  # no event shows that the daemon has read the last answer
                peaks.append(_peak(node.pid))
                node.stop_daemon()
            finally:
                pods.stop()
    without, with_ = peaks
    return [
        Figure("peak memory", "MiB", without),
        Figure(f"peak memory, a pod-resources answer of {_ANSWER_MIB} MiB", "MiB", with_, 60),
    ]


def _answer() -> bytes:
    """As of a node with thousands of pods that hold another vendor's devices and whole cores."""
    response = load_protos("podresources").ListPodResourcesResponse()
    number = 0
    while response.ByteSize() < _ANSWER_MIB * 2**20:
        for _ in range(100):
            pod = response.pod_resources.add(name=f"pod-{number:06}", namespace="elsewhere")
            container = pod.containers.add(name="main")
            container.MergeFromString(_CPU_IDS)
            for device in range(8):
                container.devices.add(
                    resource_name="example.com/device",
                    device_ids=[f"{number:08}-9c5c-4b6e-9d3f-{device:012}"],
                )
            number += 1
    return bytes(response.SerializeToString())


def _peak(pid: int) -> float:
    """The greatest resident memory of a process so far, MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _measure_unread_log() -> list[Figure]:
    """Refused calls, each with a line for the log: with a reader, and with one that has stopped."""
    reader, writer = os.pipe()
    with (
        Node(EIGHT_WHOLE) as node,
        Node(EIGHT_WHOLE, log=Path(f"/proc/self/fd/{writer}")) as unread,
    ):
        sockets = []
        for each in (node, unread):
            each.start_daemon()
            sockets.append(str(each.plugins / "birentech.com-gpu.sock"))
        load(
            "refused", 1, _REFUSALS, sockets[1]
        )  # from here on the pipe and what waits for it are full
        read, stopped = load("refused", _ROUNDS, _REFUSALS // _ROUNDS, *sockets)
        os.close(reader)
        os.close(writer)
    return [
        *spread("refused Allocate", read),
        *spread("refused Allocate, log not read", stopped),
        Figure("refused Allocate, log not read / read", "times", ratio(stopped, read), 1.1),
    ]
