"""The console script and `python -m biren_plugin`: light enough that Ctrl-C finds it ready at once."""

import os

try:
    import gc
    import signal
    from typing import Final, NoReturn

    from biren_plugin.signals import heed_early
except KeyboardInterrupt:  # these few take ten milliseconds
    os._exit(130)

EXIT_INTERRUPTED: Final = 130
"""128 + SIGINT, as in shells."""


def main() -> NoReturn:
    """Run the command line. Ctrl-C ends it without a traceback, even while modules are imported."""
    heed_early(signal.SIGTERM)
    try:
        gc.disable()  # for imports: modules are no garbage; whatever runs for longer enables it again
        from biren_plugin.cli import main as run

        run()
    except KeyboardInterrupt:
        # At once: a thread that waits for a hung driver would keep the interpreter from ending.
        os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
