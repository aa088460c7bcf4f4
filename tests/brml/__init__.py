"""A stand-in for the management library, compiled from C, and the file that tells it what to say.

The library reads the file anew at each call, so a test changes what a GPU says while something asks.
"""

import os
import select
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).with_name("brml.c")
_DEADLINE: Final = 20.0
"""Seconds for what takes milliseconds: only a test that fails waits so long."""

STATE_VARIABLE: Final = "BRML_STATE"
"""Where the library finds the name of its file."""
WELL: Final = {
    "status": 0,
    "instance": 0,
    "uuid": "GPU-5f2b6a1c-0001",
    "name": "Biren166M",
    "serial": "SN-0042",
    "bus_id": "0000003B:5E:00.0",
    "numa_node": 1,
    "memory": "68182605824 68082605824 100000000",
    "temperature": 41,
    "shutdown_temperature": 95,
    "slowdown_temperature": 85,
    "ecc_corrected": 3,
    "ecc_uncorrected": 0,
    "power": 120_500,
    "throttle": 6,
    "links": 4,
    "link_states": "1 1 0 1",
    "utilization": "17 4",
}
"""Everything that there is to be said of a card, and nothing wrong with it."""
_KEYS: Final = {
    "temperature": "temperature.0",
    "shutdown_temperature": "threshold.0",
    "slowdown_temperature": "threshold.1",
    "ecc_corrected": "ecc.0.0",
    "ecc_uncorrected": "ecc.1.0",
}
"""Where the library's own numbers for kinds and sensors are part of the key."""


def build_stand_in(folder: Path, *, old: bool = False) -> Path:
    """The library, compiled into `folder`; `old`: one that lacks several functions."""
    library = folder / "libbiren-ml.so.1"
    compiler = ["cc"] if shutil.which("cc") else [sys.executable, "-m", "ziglang", "cc"]
    flags = ["-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared", *(["-DOLD"] if old else [])]
    subprocess.run([*compiler, *flags, "-o", str(library), str(_SOURCE)], check=True)
    return library


def without_end(character: str) -> str:
    """A text that fills its buffer to the last byte."""
    return f"~{character}"


class BrmlState:
    """What the library says; each change is in the file when the method returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._says: dict[str, str] = {"gpus": "0"}
        fifo = Path(f"{path}.hangs")
        fifo.unlink(missing_ok=True)
        os.mkfifo(fifo)
        self._hangs = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._heard = b""
        self._write()

    def close(self) -> None:
        """Whatever hangs is let go, and nothing is told any more."""
        self.release()
        os.close(self._hangs)

    def add_gpu(self, *nodes: int, **values: object) -> int:
        """A GPU with these cards, each of which says these values; its index."""
        gpu = int(self._says["gpus"])
        self._says["gpus"] = str(gpu + 1)
        self.split(gpu, *nodes)
        for number in nodes:
            self.set_card(number, **values)
        return gpu

    def split(self, gpu: int, *nodes: int) -> None:
        """The GPU has these cards now, as many as it has instances, and no other split is pending."""
        self.set_gpu(gpu, nodes=" ".join(map(str, nodes)), mode=len(nodes), pending=len(nodes))

    def set_gpu(self, gpu: int, **values: object) -> None:
        """`mode`, `pending`, `nodes` of a GPU."""
        self._set(f"gpu.{gpu}", values)

    def set_card(self, number: int, **values: object) -> None:
        """Values of a card, named as in `WELL`; None: it does not say any more."""
        self._set(f"card.{number}", {_KEYS.get(name, name): each for name, each in values.items()})

    def set_pair(self, a: int, b: int, **values: object) -> None:
        """`p2p` (type and count) and `ancestor` of two cards."""
        self._set(f"pair.{min(a, b)}.{max(a, b)}", values)

    def set_system(self, **values: object) -> None:
        """`driver` and `library`: their versions."""
        self._set("system", values)

    def set(self, key: str, value: object) -> None:
        """Any line of the file; None: no such line."""
        parent, _, name = key.rpartition(".")
        self._set(parent, {name: value})

    def fail(self, function: str, code: int, number: int | None = None) -> None:
        """The function returns `code`, for one card or for all; 0: it is well again."""
        self.set(f"fail.{function}" if number is None else f"fail.{function}.{number}", code)

    def hang(self, function: str, number: int | None = None) -> None:
        """The function does not return before `release`, for one card or for all."""
        self.set(f"hang.{function}" if number is None else f"hang.{function}.{number}", 1)

    def release(self) -> None:
        """Whatever hangs returns, and nothing hangs from now on."""
        self._says = {key: each for key, each in self._says.items() if not key.startswith("hang.")}
        self._write()

    def wait_for_hang(self) -> str:
        """Function and card of the next call that began to hang; blocks."""
        while b"\n" not in self._heard:
            ready, _, _ = select.select([self._hangs], [], [], _DEADLINE)
            assert ready, f"no call hangs; the state: {self._says}"
            self._heard += os.read(self._hangs, 4096)
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()

    def _set(self, parent: str, values: dict[str, object]) -> None:
        for name, value in values.items():
            key = f"{parent}.{name}" if parent else name
            if value is None:
                self._says.pop(key, None)
            else:
                self._says[key] = str(value)
        self._write()

    def _write(self) -> None:
        text = "".join(f"{key}={value}\n" for key, value in self._says.items())
        new = self.path.with_name(f"{self.path.name}.new")
        new.write_bytes(text.encode("latin-1"))
        new.rename(self.path)  # in one step: the library may be reading it
