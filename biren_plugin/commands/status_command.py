"""`status`."""

from biren_plugin.commands.flags import StatusDir, Switch
from biren_plugin.commands.show_status import show_status
from biren_plugin.core.settings import DEFAULT_STATUS_DIR


def status(
    *, json: Switch = False, watch: Switch = False, status_dir: StatusDir = DEFAULT_STATUS_DIR
) -> int:
    """Show what the running daemon knows and does: resources, cards, and which pod has each.

    Parameters
    ----------
    json
        Print one JSON document a line (its schema: schema/status.schema.json).
    watch
        Show it anew each second, until Ctrl-C.
    status_dir
        The folder of the daemon's socket, as the daemon was told.
    """
    show_status(status_dir, as_json=json, watch=watch)
    return 0
