"""`status` and `devices` with an ordinary command line, without cyclopts, which takes longer than they do."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Final

from biren_plugin.commands.plain_words import NotPlain, Parameter, plain_values

_MODULES: Final = {
    "devices": "biren_plugin.commands.show_devices",
    "status": "biren_plugin.commands.show_status",
}
"""By command, which is also the name of its function. A module is imported when its command is called."""
SETTINGS_TOO: Final = frozenset(["container_runtime", "exclude", "host_root", "status_dir"])
"""Their parameters that are settings of the daemon, and so have variables. Not read from `core.settings`,
whose imports take longer than all that `status` does; a test compares the two."""


def plain_command(words: Sequence[str], environment: Mapping[str, str]) -> Callable[[], int] | None:
    """Return the call of the command; None if cyclopts must read the command line."""
    if not words or words[0] not in _MODULES:
        return None
    run: Callable[..., int] = getattr(import_module(_MODULES[words[0]]), words[0])
    defaults = run.__kwdefaults__ or {}  # every parameter is a flag
    parameters = [
        Parameter(name, run.__annotations__[name], default) for name, default in defaults.items()
    ]
    try:
        given = plain_values(words[1:], environment, parameters, SETTINGS_TOO)
    except NotPlain:
        return None
    return partial(run, **{name: value for name, (value, _) in given.items()})
