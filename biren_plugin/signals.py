"""Which signals end the daemon, which are ignored, and the handlers until the daemon has its own.

Light: imported before everything else. A signal without a handler ends a process without a line; a
container's first process does not even notice SIGTERM then, and the kubelet kills it 30 seconds later.
"""

import os
import signal
from types import FrameType
from typing import Final, NoReturn

STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""These end the daemon cleanly; a second one ends it at once."""
STRAY: Final = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)
"""These have no meaning here, and would by default end the daemon with its sockets left behind."""
_STANDARD_ERROR: Final = 2


def heed_early(*numbers: signal.Signals) -> None:
    """Make these signals end the process at once, with a line and the exit status of shells."""
    for each in numbers:
        signal.signal(each, _end)


def ignore_stray() -> None:
    """Ignore stray signals."""
    for each in STRAY:
        signal.signal(each, signal.SIG_IGN)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    text = f"br-gpu-device-plugin: stopping: {signal.Signals(number).name}\n"
    try:
        # Not through sys.stderr, which may be in the middle of a write.
        os.write(_STANDARD_ERROR, text.encode())
    finally:
        os._exit(128 + number)
