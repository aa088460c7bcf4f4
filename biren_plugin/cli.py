"""The command line: which commands there are, exit statuses, and errors in one line.

Cyclopts parses, converts and prints help. The layers around it, in the order of a command line's way:

1. `commands/flags` rewrites the words, because manifests were written for the vendor's parser: there the
   last of a repeated flag counts, and a switch takes a value only after `=`.
2. `commands/flags` gives a command one parameter for each field of `Settings`, so that a setting is
   written down once. Environment variables are cyclopts' own, on these parameters.
3. `commands/settings_file` is a cyclopts config: it fills what neither a flag nor a variable gave.
4. The converter of `commands/flags` reads a value as `core/setting_field` defines it, the same from all
   three sources, and keeps where it came from, for the log and for errors.
5. `main` turns errors into one line and an exit status.
"""

import errno
import inspect
import os
import re
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import Final, NoReturn, get_args

import cyclopts
from cyclopts import App

from biren_plugin import __version__
from biren_plugin.commands import flags
from biren_plugin.commands.run_daemon import daemon
from biren_plugin.commands.settings_file import fill_from_file
from biren_plugin.core.setting_field import FALSE, TRUE, key_of
from biren_plugin.errors import PluginError, UsageError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
_STANDARD_OUTPUT: Final = 1
_STANDARD_ERROR: Final = 2
"""Descriptors."""
_NO_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)
_OF_A_WRITE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""Errors of writing standard output; unlike other errors, they have no file name."""

app = App(
    name="br-gpu-device-plugin",
    help="""A Kubernetes device plugin for Biren GPUs. Without a command, it runs as the node's daemon.

    Each of the daemon's flags can also be set in the environment (--health-mode as BR_GPU_HEALTH_MODE;
    several values separated by commas) and in the file of --config (health-mode: observe). A flag
    overrides a variable, a variable overrides the file.
    """,
    version=f"br-gpu-device-plugin {__version__}",
    version_flags=["--version", "-V"],
    help_flags=["--help", "-h"],
    config=[fill_from_file],
)
app.default(daemon)
# By name: a module and its imports are loaded when its command is called.
app.command(
    "biren_plugin.commands.cdi_file_commands:cdi",
    name="cdi",
    help="Write the node's CDI file, or compare it with the node.",
)
app.command("biren_plugin.commands.show_devices:devices", help="Show the Biren cards of this host.")
app.command(
    "biren_plugin.commands.doctor.examination:doctor",
    help="""Check what allocating cards needs, and print what is missing and what to do.

    Give it the daemon's flags. Exit status: 0; 1 with a warning; 2 with a failure; 3 if --report could
    not be written.
    """,
)
app.command(
    "biren_plugin.commands.run_simulation:simulate",
    help="Run a scripted demo on a simulated host, without hardware, root or Kubernetes.",
)
app.command(
    "biren_plugin.commands.show_status:status",
    help="Show the running daemon's resources and cards, and which pod holds each card.",
)


def main() -> NoReturn:
    """The console script. Exits with the command's status, 1 (failed) or 2 (a wrong command line)."""
    _fill_closed_streams()
    try:
        status = app(
            _as_cyclopts_takes_it(sys.argv[1:]),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        sys.stdout.flush()  # a full disk is noticed here, and not while the interpreter ends
    except cyclopts.CycloptsError as error:
        _complain(f"{_explain(error)}; see br-gpu-device-plugin --help", EXIT_USAGE)
    except UsageError as error:
        _complain(str(error), EXIT_USAGE)
    except PluginError as error:
        _complain(str(error), EXIT_FAILED)
    except BrokenPipeError:  # the reader has closed the pipe
        _drop_output()
        sys.exit(EXIT_FAILED)
    except OSError as error:
        if error.filename is None and error.errno in _OF_A_WRITE:
            _drop_output()
        _complain(_explain_system_error(error), EXIT_FAILED)
    sys.exit(status)


def _fill_closed_streams() -> None:
    """Open /dev/null for streams that the caller closed, so that no socket gets their descriptors."""
    while (spare := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        pass
    os.close(spare)
    sys.stdout = sys.stdout or os.fdopen(_STANDARD_OUTPUT, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(_STANDARD_ERROR, "w", closefd=False)


def _as_cyclopts_takes_it(words: Sequence[str]) -> list[str]:
    """Return the command line, rewritten from the vendor's forms by the called command's flags."""
    _, apps, _ = app.parse_commands(takewhile(lambda word: not word.startswith("-"), words))
    called = apps[-1]
    parameters = (
        inspect.signature(called.default_command).parameters if called.default_command else {}
    )
    # Not from cyclopts, which would take 8 ms to make its arguments of these parameters, twice.
    by_flag = {f"--{key_of(name)}": each for name, each in parameters.items()}
    switches = {flag for flag, each in by_flag.items() if bool in get_args(each.annotation)}
    several = {flag for flag, each in by_flag.items() if each.default == ()}
    return flags.rewrite(words, {*switches, *called.help_flags, *called.version_flags}, several)


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(error: cyclopts.CycloptsError) -> str:
    """Return what is wrong, and the valid form."""
    match error:
        case cyclopts.UnusedCliTokensError(unused_tokens=words) if words:
            if words[0] in app:
                return f"put the command first: br-gpu-device-plugin {words[0]} ..."
            if words[0] in TRUE + FALSE:
                return f"{words[0]}: join it to its flag by =, as in --cdi-feature={words[0]}"
            if error.command_chain:
                return f"{' '.join(error.command_chain)}: takes no {words[0]!r}"
            return f"there is no command {words[0]!r}"
        case _:
            text = str(error).strip().rstrip(".")
            return re.sub(r"\. Did you mean (.+)\?$", r" (did you mean \1?)", text)


def _explain_system_error(error: OSError) -> str:
    """Return the system's error, its file, and advice if there is any."""
    text = error.strerror or f"{error}"
    if error.errno in _NO_DESCRIPTORS:
        return f"{text}: raise the limit (ulimit -n)"
    if error.filename is not None:
        return f"{text}: {error.filename}"
    return f"{text}: standard output" if error.errno in _OF_A_WRITE else text


def _complain(text: str, status: int) -> NoReturn:
    print(f"br-gpu-device-plugin: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(status)
