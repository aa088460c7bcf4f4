"""The command line of the soak: runs a schedule, or restarts only, and reports what has grown."""

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.soak.disk_trouble import DiskTrouble
from tests.soak.library_trouble import LibraryTrouble
from tests.soak.schedule import Schedule, SoakError, settle
from tests.soak.state import State, growth
from tests.support.simulated_node import Node

_SPLITS = {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 2, 6: 4, 7: 4}
_RESTARTS_BETWEEN_PAUSES = 50
_FLAGS = ("--recover-after=0",)
_SHOWN = 120
"""Lines of the daemon's log."""


def main() -> int:
    """Exit status 1 if something grew, the views differ, or the daemon failed on a bug."""
    parser = argparse.ArgumentParser(prog="nox -s soak --", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--restarts", type=int, help="only restart the kubelet, that often")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="br") as name:
        folder, log = Path(name), Path(name) / "log"
        (folder / "clock").write_text("0\n")
        os.environ["SOAK_FOLDER"] = name
        program = (sys.executable, "-m", "tests.soak.counted_daemon")
        with Node(_SPLITS, *program, log=log) as node:
            try:
                if arguments.restarts:
                    node.start_daemon(*_FLAGS)
                    states = restart(node, folder, arguments.restarts)
                else:
                    print(f"seed {arguments.seed}", flush=True)
                    states = live(node, folder, random.Random(arguments.seed), arguments.seconds)
            except SoakError as error:
                print(f"FAILED: {error}\nthe daemon's log:\n{_end_of(log)}")
                return 1
        return report(states, log)


def live(node: Node, folder: Path, chance: random.Random, seconds: float) -> list[State]:
    """Random events, with a library and, where one can be mounted, a small disk."""
    with contextlib.ExitStack() as stack:
        library = LibraryTrouble(node, folder, chance)
        stack.callback(library.close)
        disk: DiskTrouble | None = None
        try:
            disk = DiskTrouble(folder)
            stack.callback(disk.close)
        except subprocess.CalledProcessError:
            print("no disk that can be full, and so no CDI: mounting one needs root")
        flags = _FLAGS + (disk.flags if disk is not None else ())
        node.start_daemon(*flags)
        stack.callback(node.stop_daemon)  # before the disk is unmounted
        return Schedule(node, _SPLITS, folder, chance, library, disk, *flags).run(seconds)


def restart(node: Node, folder: Path, count: int) -> list[State]:
    """Restarts the kubelet `count` times; the states after each fifty."""
    states = []
    for number in range(1, count + 1):
        mark = node.kubelet.mark()
        node.kubelet.restart()
        node.wait_for_lists(mark)
        if number % _RESTARTS_BETWEEN_PAUSES == 0:
            states.append(settle(node, folder))
            print(f"{number:6} restarts      {states[-1]}", flush=True)
    return states


def report(states: Sequence[State], log: Path) -> int:
    """Compares the last state with the first, and looks for bugs in the log."""
    print(f"at first    {states[0]}\nat the end  {states[-1]}")
    if "Traceback" in log.read_text(errors="replace"):
        print(f"FAILED on a bug; the daemon's log:\n{_end_of(log)}")
        return 1
    growing = growth(states)
    print(f"FAILED, it grew: {'; '.join(growing)}" if growing else "flat")
    return 1 if growing else 0


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_SHOWN:])


if __name__ == "__main__":
    sys.exit(main())
