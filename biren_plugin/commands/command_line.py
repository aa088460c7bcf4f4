"""The command line as cyclopts reads it: which commands there are, their flags, help and errors.

Cyclopts parses, converts and prints help. The layers around it, in the order of a command line's way:

1. `flags.rewrite` changes the words, because manifests were written for the vendor's parser: there the
   last of a repeated flag counts, and a switch takes a value only after `=`.
2. `flags.with_settings` gives a command one parameter for each field of `Settings`, so that a setting is
   written down once.
3. `flags.fill_from_environment` is a cyclopts config: it fills what no flag gave. It, and not annotations of
   cyclopts, because `plain_command` calls the same functions without it.
4. The converter of `flags` reads a value as `core/setting_field` defines it, the same from all
   three sources, and keeps where it came from, for the log and for errors.
5. The command that `flags.with_settings` returns adds what only the settings file gave, and makes `Settings`.
"""

import inspect
import re
from collections.abc import Sequence
from itertools import takewhile
from typing import get_args

import cyclopts
from cyclopts import App

from biren_plugin import __version__
from biren_plugin.commands import flags
from biren_plugin.commands.flags import EVERY_PARAMETER, fill_from_environment, with_settings
from biren_plugin.commands.run_daemon import daemon
from biren_plugin.core.setting_field import FALSE, TRUE, key_of
from biren_plugin.errors import UsageError

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
    config=[fill_from_environment],
    default_parameter=EVERY_PARAMETER,
)
app.default(with_settings(daemon))
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


def run(words: Sequence[str]) -> int:
    """Run the command that the words call, and return its exit status. Raises `UsageError`."""
    try:
        status: int = app(
            _as_cyclopts_takes_it(words),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except cyclopts.CycloptsError as error:
        raise UsageError(f"{_explain(error)}; see br-gpu-device-plugin --help") from error
    return status


def _as_cyclopts_takes_it(words: Sequence[str]) -> list[str]:
    """Return the command line, rewritten from the vendor's forms by the called command's flags."""
    _, apps, _ = app.parse_commands(takewhile(lambda word: not word.startswith("-"), words))
    called = apps[-1]
    parameters = (
        inspect.signature(called.default_command).parameters if called.default_command else {}
    )
    # Not from cyclopts, which would take 8 ms to make its arguments of these parameters, twice.
    by_flag = {f"--{key_of(name)}": each for name, each in parameters.items()}
    switches = {
        flag
        for flag, each in by_flag.items()
        if each.annotation is bool or bool in get_args(each.annotation)
    }
    several = {flag for flag, each in by_flag.items() if each.default == ()}
    return flags.rewrite(words, {*switches, *called.help_flags, *called.version_flags}, several)


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
