"""`simulate`."""

import trio

from biren_plugin.commands.flags import Switch, Whole
from biren_plugin.simulate.host import read_splits
from biren_plugin.simulate.story import tell_story


def simulate(*, gpus: Whole = 8, svi: str = "", keep_running: Switch = False) -> int:
    """Show the whole story on a simulated host, without hardware, root or Kubernetes.

    Parameters
    ----------
    gpus
        How many GPUs the simulated host has.
    svi
        Which GPUs are split, and into how many instances: 6:2,7:4 splits GPU 6 in 2 and 7 in 4.
    keep_running
        Stay until Ctrl-C when the story is told.
    """
    splits = read_splits(gpus, svi)
    return 0 if trio.run(tell_story, splits, keep_running) else 1
