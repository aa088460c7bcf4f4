"""A load client on grpcio, in a process of its own: `python -m tests.bench.load SOCKET MODE CALLS`.

Prints a JSON list: milliseconds of each call (`one`, one after the other), or calls a second and
how many failed (`many`, 64 at once).
"""

import json
import sys
import threading
import time

import grpc

METHOD = "/v1beta1.DevicePlugin/Allocate"
REQUEST = b"\x0a\x08\x0a\x06card_0"
AT_ONCE = 64


def main() -> None:
    """Runs one load and prints what it measured."""
    socket, mode, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
    address = socket if ":" in socket else f"unix://{socket}"
    with grpc.insecure_channel(address) as channel:
        allocate = channel.unary_unary(METHOD)
        allocate(REQUEST, wait_for_ready=True)
        print(
            json.dumps(one_by_one(allocate, calls) if mode == "one" else at_once(allocate, calls))
        )


def one_by_one(allocate: grpc.UnaryUnaryMultiCallable, calls: int) -> list[float]:
    """Milliseconds of each call."""
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        allocate(REQUEST)
        times.append((time.perf_counter() - started) * 1000)
    return times


def at_once(allocate: grpc.UnaryUnaryMultiCallable, calls: int) -> list[float]:
    """Calls a second with 64 open at any time, and how many failed."""
    free = threading.Semaphore(AT_ONCE)
    failed: list[grpc.StatusCode] = []

    def done(call: grpc.Future) -> None:
        if call.code() is not grpc.StatusCode.OK:
            failed.append(call.code())
        free.release()

    started = time.perf_counter()
    for _ in range(calls):
        free.acquire()
        allocate.future(REQUEST).add_done_callback(done)
    for _ in range(AT_ONCE):
        free.acquire()
    return [calls / (time.perf_counter() - started), len(failed)]


if __name__ == "__main__":
    main()
