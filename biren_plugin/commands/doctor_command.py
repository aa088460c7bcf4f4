"""`doctor`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from biren_plugin.commands.doctor.examination import run_doctor
from biren_plugin.commands.flags import Switch, with_settings
from biren_plugin.core.settings import Settings


@with_settings
def doctor(
    *,
    settings: Settings,
    json: Annotated[
        Switch, Parameter(help="Print one JSON document (schema/doctor.schema.json).")
    ] = False,
    report: Annotated[
        Path | None,
        Parameter(help="Write what was read of the host to this tar.gz, without secrets."),
    ] = None,
) -> int:
    """Say what keeps cards from being handed out, and what to do about it.

    Give it the daemon's flags. Exit status: 0, 1 with a warning, 2 with a failure.
    """
    return run_doctor(settings, as_json=json, report=report)
