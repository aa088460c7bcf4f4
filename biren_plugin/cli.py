"""The command line: which commands there are, exit statuses, and errors in one line."""

import os
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import Final, NoReturn

import cyclopts
from cyclopts import App

from biren_plugin import __version__
from biren_plugin.commands import pflag
from biren_plugin.commands.run_daemon import daemon
from biren_plugin.commands.settings_file import fill_from_file
from biren_plugin.core.setting_field import FALSE, TRUE
from biren_plugin.errors import PluginError, UsageError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
_STANDARD_OUTPUT: Final = 1
_STANDARD_ERROR: Final = 2
"""Descriptors."""

app = App(
    name="br-gpu-device-plugin",
    help="""Offers the Biren GPUs of this node to Kubernetes. Without a command: runs as the node's daemon.

    Each of the daemon's flags is also taken from the environment (--health-mode as BR_GPU_HEALTH_MODE;
    several values: with commas) and from the file of --config (health-mode: observe). A flag counts
    before a variable, a variable before the file.
    """,
    version=f"br-gpu-device-plugin {__version__}",
    version_flags=["--version", "-V"],
    help_flags=["--help", "-h"],
    config=[fill_from_file],
)
app.default(daemon)
# By name: a module, and what it needs, is imported when its command is called.
app.command(
    "biren_plugin.commands.cdi_file_commands:cdi",
    name="cdi",
    help="Write the node's CDI file, or compare it with the node.",
)
app.command("biren_plugin.commands.show_devices:devices", help="Show the Biren cards of this host.")
app.command(
    "biren_plugin.commands.doctor.examination:doctor",
    help="""Say what keeps cards from being handed out, and what to do about it.

    Give it the daemon's flags. Exit status: 0, 1 with a warning, 2 with a failure.
    """,
)
app.command(
    "biren_plugin.commands.run_simulation:simulate",
    help="Show the whole story on a simulated host, without hardware, root or Kubernetes.",
)
app.command(
    "biren_plugin.commands.show_status:status",
    help="Show what the running daemon knows and does: resources, cards, and which pod has each.",
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
        sys.stdout.flush()  # a full disk is noticed here, not by the interpreter's last breath
    except cyclopts.CycloptsError as error:
        _complain(f"{_explain(error)}; see br-gpu-device-plugin --help", EXIT_USAGE)
    except UsageError as error:
        _complain(str(error), EXIT_USAGE)
    except PluginError as error:
        _complain(str(error), EXIT_FAILED)
    except BrokenPipeError:  # whoever read our output has seen enough
        _drop_output()
        sys.exit(EXIT_FAILED)
    except OSError as error:
        _drop_output()
        _complain(f"{error.strerror}: {error.filename or 'standard output'}", EXIT_FAILED)
    sys.exit(status)


def _fill_closed_streams() -> None:
    """What whoever started us has closed leads nowhere: neither to None, nor to a socket of ours."""
    while (spare := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        pass
    os.close(spare)
    sys.stdout = sys.stdout or os.fdopen(_STANDARD_OUTPUT, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(_STANDARD_ERROR, "w", closefd=False)


def _as_cyclopts_takes_it(words: Sequence[str]) -> list[str]:
    """The command line, rewritten from the vendor's forms by what the called command's flags are."""
    _, apps, _ = app.parse_commands(takewhile(lambda word: not word.startswith("-"), words))
    called = apps[-1]
    arguments = called.assemble_argument_collection() if called.default_command else ()
    switches = {argument.name for argument in arguments if argument.hint is bool}
    several = {argument.name for argument in arguments if argument.field_info.default == ()}
    return pflag.rewrite(words, {*switches, *called.help_flags, *called.version_flags}, several)


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(error: cyclopts.CycloptsError) -> str:
    """What is wrong, and what would be right."""
    match error:
        case cyclopts.UnusedCliTokensError(unused_tokens=words) if words:
            if words[0] in app:
                return f"put the command first: br-gpu-device-plugin {words[0]} ..."
            if words[0] in TRUE + FALSE:
                return f"{words[0]}: join it to its flag by =, as in --cdi-feature={words[0]}"
            return f"there is no command {words[0]!r}"
        case _:
            return str(error).strip().rstrip(".")


def _complain(text: str, status: int) -> NoReturn:
    print(f"br-gpu-device-plugin: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(status)
