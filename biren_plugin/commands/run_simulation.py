"""`simulate`: the demo's flags and exit status."""

from typing import Final

import trio

from biren_plugin.commands.flags import Switch, Whole
from biren_plugin.simulate.host import read_splits
from biren_plugin.simulate.story import Outcome, tell_story

_EXIT_STATUS: Final = {Outcome.RIGHT: 0, Outcome.FAILED: 1, Outcome.STOPPED: 130}
"""130: as shells have it of Ctrl-C."""


def simulate(*, gpus: Whole = 8, svi: str = "", keep_running: Switch = False) -> int:
    """Run a scripted demo on a simulated host, without hardware, root or Kubernetes.

    Exit status: 0 if each step came out right, 1 if one did not, 130 after Ctrl-C before the end.

    Parameters
    ----------
    gpus
        How many GPUs the simulated host has.
    svi
        Which GPUs are split, and into how many instances: 6:2,7:4 splits GPU 6 in 2 and 7 in 4.
    keep_running
        Keep running after the demo, until Ctrl-C.
    """
    splits = read_splits(gpus, svi)
    return _EXIT_STATUS[trio.run(tell_story, splits, keep_running)]
