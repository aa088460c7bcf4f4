"""The command line without a command: the node's daemon."""

import gc
import os
from collections.abc import Iterable

from biren_plugin.core.setting_field import CONFIG, CONFIG_DIR, VARIABLE_PREFIX, variable_of
from biren_plugin.core.settings import SETTINGS, Settings
from biren_plugin.signals import STOPPING, heed_early, ignore_stray


def daemon(settings: Settings) -> int:
    """Run as the node's daemon."""
    heed_early(*STOPPING)  # until the daemon listens itself
    ignore_stray()
    gc.disable()  # imported modules stay: collecting garbage among them costs a tenth of the start
    import trio

    from biren_plugin.daemon import run_until_signal
    from biren_plugin.monitor import logs
    from biren_plugin.monitor.standard_error import replace_standard_error
    from biren_plugin.notice import WARNING, say

    replace_standard_error(logs.dropped)
    logs.configure(settings.log_level, settings.log_format)
    for name in unknown_variables(os.environ.keys()):
        text = f"{name}: unknown setting; see br-gpu-device-plugin --help"
        say("setting_unknown", text, WARNING, variable=name)
    # Without the modules, a full collection has little to scan, so it runs early and costs little,
    # and the garbage of a restart does not grow in proportion to the modules.
    gc.freeze()
    gc.enable()
    trio.run(run_until_signal, settings)
    return 0


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Return names like a setting's variable that no setting has: a misspelt variable must not go unnoticed."""
    known = {
        variable_of(name) for name in (*(field.name for field in SETTINGS), CONFIG, CONFIG_DIR)
    }
    return sorted(name for name in set(names) - known if name.startswith(VARIABLE_PREFIX))
