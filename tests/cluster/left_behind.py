"""`python -m tests.cluster.left_behind STATE CGROUP`: removes what a session leaves on the machine.

It waits until its standard input ends, which happens when the session ends for any reason: a session
that was killed cannot clean up by itself. Mounts, processes and network end with the namespaces.
"""

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
_DEADLINE: Final = 10.0
"""Seconds; the kernel needs much less to end the namespace's processes."""


def main() -> int:
    """The exit status: 0, as nothing is left."""
    state, cgroup = sys.argv[1:]
    sys.stdin.buffer.read()
    deadline = time.monotonic() + _DEADLINE
    remove_cgroup(cgroup, deadline)
    shutil.rmtree(state)
    return 0


def remove_cgroup(name: str, deadline: float) -> None:
    """Removes the cgroup from each hierarchy. Raises OSError if processes stay in it."""
    for top in [*_CGROUPS.glob(f"*/{name}"), *_CGROUPS.glob(name)]:
        while top.exists():
            for directory, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):  # busy: its processes are ending
                    Path(directory).rmdir()
            if top.exists() and time.monotonic() > deadline:
                top.rmdir()
            time.sleep(0.05)  # the kernel sends no notification of an empty cgroup


if __name__ == "__main__":
    sys.exit(main())
