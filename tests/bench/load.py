"""A load client on grpcio, in a process of its own.

`python -m tests.bench.load one ROUNDS CALLS TARGET...` calls each target one call after the other,
the targets in turn in each round, and prints for each target its rounds: lists of milliseconds;
`refused` does the same with calls that ask for a card which does not exist.
`python -m tests.bench.load many CALLS TARGET` has 64 calls open at any time, and prints calls a
second, how many failed, and the milliseconds of each. `python -m tests.bench.load list CALLS TARGET`
opens a stream, takes its first list and leaves, and prints milliseconds. `python -m tests.bench.load
prefer ROUNDS CALLS SIZE CARDS TARGET` asks which SIZE of so many cards to choose, and prints rounds.
Output is JSON.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

from tests.bench.rounds import rounds

PREFER = "/v1beta1.DevicePlugin/GetPreferredAllocation"
ALLOCATE = "/v1beta1.DevicePlugin/Allocate"
LIST_AND_WATCH = "/v1beta1.DevicePlugin/ListAndWatch"
REQUEST = b"\x0a\x08\x0a\x06card_0"
REFUSED = b"\x0a\x0a\x0a\x08card_999"
AT_ONCE = 64
_TIME = 15.0
"""Seconds for the rounds of one client."""
_LONGEST = 120.0
"""Seconds after which a client without an answer is given up."""


def load(*arguments: object) -> Any:
    """What a load client in a process of its own printed."""
    command = [sys.executable, "-m", "tests.bench.load", *map(str, arguments)]
    client = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=_LONGEST)
    return json.loads(client.stdout)


def main() -> None:
    """Runs one load and prints what it measured."""
    match sys.argv[1:]:
        case ["one" | "refused" as kind, count, calls, *targets]:
            request = REQUEST if kind == "one" else REFUSED
            allocates = [_connect(target) for target in targets]
            times: list[list[list[float]]] = [[] for _ in targets]
            for _ in rounds(int(count), _TIME):
                for allocate, its_times in zip(allocates, times, strict=True):
                    its_times.append(_one_by_one(allocate, request, int(calls)))
            print(json.dumps(times))
        case ["prefer", count, calls, size, cards, target]:
            prefer = grpc.insecure_channel(f"unix://{target}").unary_unary(PREFER)
            request = _preference(int(size), int(cards))
            prefer(request, wait_for_ready=True)
            turns = rounds(int(count), _TIME)
            print(json.dumps([_one_by_one(prefer, request, int(calls)) for _ in turns]))
        case ["many", calls, target]:
            print(json.dumps(_at_once(_connect(target), int(calls))))
        case ["list", calls, target]:
            with grpc.insecure_channel(f"unix://{target}") as channel:
                watch = channel.unary_stream(LIST_AND_WATCH)
                print(json.dumps([_first_list(watch) for _ in range(int(calls))]))


def _connect(target: str) -> grpc.UnaryUnaryMultiCallable:
    """A channel lives as long as the process, and has been used when this returns."""
    channel = grpc.insecure_channel(target if ":" in target else f"unix://{target}")
    allocate = channel.unary_unary(ALLOCATE)
    allocate(REQUEST, wait_for_ready=True)
    return allocate


def _preference(size: int, cards: int) -> bytes:
    from biren_plugin.wire._proto import deviceplugin_pb2 as pb

    request = pb.PreferredAllocationRequest()
    ids = [f"card_{number}" for number in range(cards)]
    request.container_requests.add(available_deviceIDs=ids, allocation_size=size)
    return request.SerializeToString()


def _one_by_one(call: grpc.UnaryUnaryMultiCallable, request: bytes, calls: int) -> list[float]:
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        try:
            call(request)
        except grpc.RpcError:
            assert request == REFUSED
        else:
            assert request != REFUSED
        times.append((time.perf_counter() - started) * 1000)
    return times


def _first_list(watch: grpc.UnaryStreamMultiCallable) -> float:
    started = time.perf_counter()
    lists = watch(b"", wait_for_ready=True)
    next(lists)
    took = (time.perf_counter() - started) * 1000
    lists.cancel()
    return took


def _at_once(allocate: grpc.UnaryUnaryMultiCallable, calls: int) -> tuple[float, int, list[float]]:
    free = threading.Semaphore(AT_ONCE)
    failed: list[grpc.StatusCode] = []
    times: list[float] = []

    def done(since: float) -> Callable[[grpc.Future], None]:
        def note(call: grpc.Future) -> None:
            times.append((time.perf_counter() - since) * 1000)
            if call.code() is not grpc.StatusCode.OK:
                failed.append(call.code())
            free.release()

        return note

    started = time.perf_counter()
    for _ in rounds(calls, _TIME):
        free.acquire()
        note = done(time.perf_counter())
        allocate.future(REQUEST).add_done_callback(note)
    for _ in range(AT_ONCE):
        free.acquire()
    return len(times) / (time.perf_counter() - started), len(failed), times


if __name__ == "__main__":
    main()
