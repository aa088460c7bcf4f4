"""Writes a CDI file again and again, killed one step later each time: `killed_writer FILE`.

A step is a call that `files/cdi_file` makes of C code, and the return from it; system calls are
among them. The child of each round is killed by SIGKILL before that step; after each round FILE's
content, the number of the round and whether the child came to its end are one line of JSON.
"""

import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from biren_plugin.files import cdi_file


def kill_at(step: int) -> None:
    """Kill this process when it reaches that step."""
    left = step

    def count(frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal left
        if event.startswith("c_") and frame.f_code.co_filename == cdi_file.__file__:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.setprofile(count)


def main() -> None:
    path = Path(sys.argv[1])
    step = 0
    ended = False
    while not ended:
        child = os.fork()
        if child == 0:
            kill_at(step)
            cdi_file.write(path, f"round {step}\n" * 1000)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        ended = os.WIFEXITED(status)
        print(json.dumps({"step": step, "ended": ended, "content": path.read_text()}))
        step += 1


if __name__ == "__main__":
    main()
