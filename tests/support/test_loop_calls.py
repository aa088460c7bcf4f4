"""What the watch of the event loop sees, and what it leaves to threads."""

from pathlib import Path
from typing import Any

import trio

import biren_plugin
from tests.support.loop_calls import loop_calls

WAITING = """
import fcntl, os, socket, trio

async def wait_for_everything(folder):
    os.stat(folder)
    with open(f"{folder}/file", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    all(map(os.remove, [f"{folder}/file"]))
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(f"{folder}/own.sock")
        own.listen()
        async with await trio.open_unix_socket(f"{folder}/own.sock"):
            pass
    socket.getaddrinfo("localhost", 1)

async def wait_for_nothing(folder):
    await trio.to_thread.run_sync(os.stat, folder)
    with open("/proc/self/stat") as file:
        os.fstat(file.fileno())
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
    await trio.socket.getaddrinfo("localhost", 1)
"""


async def test_each_kind_of_call_is_seen_on_the_loop_alone(tmp_path: Path) -> None:
    made_up: dict[str, Any] = {}
    place = Path(biren_plugin.__file__).with_name("made_up.py")  # coverage leaves it out by name
    exec(compile(WAITING, str(place), "exec"), made_up)
    with loop_calls() as found:
        async with trio.open_nursery() as nursery:
            for name in ("wait_for_everything", "wait_for_nothing"):
                nursery.start_soon(made_up[name], tmp_path)
    where = "made_up.py wait_for_everything"
    calls = ("fcntl.flock", "open", "os.remove", "socket.bind", "socket.connect", "stat")
    assert found.keys() == {f"{where}: {call}" for call in (*calls, "socket.getaddrinfo")}
