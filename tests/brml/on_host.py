"""The stand-in library on a simulated host, knowing the cards that the host has."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.brml import STATE_VARIABLE, WELL, BrmlState, build_stand_in
from tests.support.host_truth import cards_by_gpu

_MOST_GPUS = 64


class HostLibrary:
    """Installed below `root`; processes that are started from now on find its state."""

    def __init__(self, root: Path, folder: Path) -> None:
        """`folder` is for its parts, and outlives it."""
        installed = root / "usr/lib/libbiren-ml.so.1"
        installed.unlink()
        shutil.move(build_stand_in(folder), installed)
        self.state = BrmlState(folder / "brml")
        os.environ[STATE_VARIABLE] = str(self.state.path)
        self.state.set_system(driver="1.12.0", library="1.9")
        by_gpu = cards_by_gpu(root)
        for gpu in range(min(max(by_gpu) + 1, _MOST_GPUS)):
            self.state.add_gpu()
            self.follow(gpu, by_gpu.get(gpu, ()))

    def follow(self, gpu: int, names: Sequence[str]) -> None:
        """The GPU has these cards now, each of them well; none: it has vanished."""
        numbers = [int(name.removeprefix("card_")) for name in names]
        self.state.split(gpu, *numbers)
        for instance, number in enumerate(numbers):
            self.state.set_card(number, **{**WELL, "instance": instance})
