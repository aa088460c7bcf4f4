"""`simulate`: the demo's flags and exit status."""

from typing import Final

import trio

from biren_plugin.simulate.host import read_splits
from biren_plugin.simulate.story import Outcome, run_story

_EXIT_STATUS: Final = {Outcome.RIGHT: 0, Outcome.FAILED: 1, Outcome.STOPPED: 130}
"""130, as in shells after Ctrl-C."""


def simulate(*, gpus: int = 8, svi: str = "", keep_running: bool = False) -> int:
    """Run a scripted demo on a simulated host, without hardware, root or Kubernetes.

    Exit status: 0 if every step succeeded, 1 if one failed, 130 after Ctrl-C before the end.

    Parameters
    ----------
    gpus
        The number of GPUs of the simulated host.
    svi
        The GPUs that are split, and their numbers of instances: 6:2,7:4 splits GPU 6 into 2 and GPU 7 into 4.
    keep_running
        Keep running after the demo, until Ctrl-C.
    """
    splits = read_splits(gpus, svi)
    return _EXIT_STATUS[trio.run(run_story, splits, keep_running)]
