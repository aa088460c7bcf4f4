"""A load client on grpcio, in a process of its own: `python -m tests.bench.load SOCKET MODE CALLS`.

Prints a JSON list: milliseconds of each call (`one`, one after the other), or calls a second and
how many failed (`many`, 64 at once). `prefer:4:8` is as `one`, and asks to choose 4 of 8 cards.
"""

import json
import subprocess
import sys
import threading
import time

import grpc

SERVICE = "/v1beta1.DevicePlugin"
REQUEST = b"\x0a\x08\x0a\x06card_0"
AT_ONCE = 64


def load(socket: str, mode: str, calls: int) -> list[float]:
    """What a load client in a process of its own printed."""
    command = [sys.executable, "-m", "tests.bench.load", socket, mode, str(calls)]
    return list(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def main() -> None:
    """Runs one load and prints what it measured."""
    socket, mode, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
    address = socket if ":" in socket else f"unix://{socket}"
    with grpc.insecure_channel(address) as channel:
        allocate = channel.unary_unary(f"{SERVICE}/Allocate")
        allocate(REQUEST, wait_for_ready=True)
        if mode == "many":
            printed = at_once(allocate, calls)
        elif mode == "one":
            printed = one_by_one(allocate, REQUEST, calls)
        else:
            prefer = channel.unary_unary(f"{SERVICE}/GetPreferredAllocation")
            printed = one_by_one(prefer, preference(mode), calls)
        print(json.dumps(printed))


def preference(mode: str) -> bytes:
    """The request that `prefer:4:8` stands for."""
    from biren_plugin.wire._proto import deviceplugin_pb2 as pb

    _, size, available = mode.split(":")
    request = pb.PreferredAllocationRequest()
    ids = [f"card_{number}" for number in range(int(available))]
    request.container_requests.add(available_deviceIDs=ids, allocation_size=int(size))
    return request.SerializeToString()


def one_by_one(call: grpc.UnaryUnaryMultiCallable, request: bytes, calls: int) -> list[float]:
    """Milliseconds of each call."""
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        call(request)
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
