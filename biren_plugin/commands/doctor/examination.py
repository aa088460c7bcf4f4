"""`doctor`: checks everything that allocating cards needs, and prints what to do.

The checks run at the same time, each in a thread of its own, and none longer than `DEADLINE`: a driver
that hangs must be a row of the table, not keep it from being printed.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import trio
from cyclopts import Parameter

from biren_plugin import __version__
from biren_plugin.commands.doctor import in_pod
from biren_plugin.commands.doctor.card_checks import check_cards, check_library
from biren_plugin.commands.doctor.daemon_checks import (
    check_daemon,
    check_limits,
    check_probes,
    check_settings_file,
)
from biren_plugin.commands.doctor.diagnosis import Check, cure_of, exit_status, failure, unknown
from biren_plugin.commands.doctor.directory_checks import check_mounts
from biren_plugin.commands.doctor.dra_checks import check_dra, check_node_events
from biren_plugin.commands.doctor.hami_checks import check_hami
from biren_plugin.commands.doctor.kubelet_checks import check_kubelet, check_kubelet_version
from biren_plugin.commands.doctor.passthrough_checks import check_passthrough
from biren_plugin.commands.doctor.report import STANDARD_OUTPUT, write_report
from biren_plugin.commands.doctor.runtime_checks import check_cdi_file, check_runtime
from biren_plugin.commands.flags import with_settings
from biren_plugin.commands.tables import Row, print_table
from biren_plugin.core.settings import Settings
from biren_plugin.errors import (
    PluginError,
    ReportTooSlow,
    UsageError,
    reason_of,
    why_unwritable,
)

DEADLINE: Final = 10.0
"""Seconds for one check, and for reading the files of a report."""
_EXIT_NO_REPORT: Final = 3
"""Different from 1 and 2, which are about the node."""

Examination = Callable[[Settings], Iterator[Check]]
_EXAMINATIONS: Final[Sequence[tuple[str, Examination]]] = (
    ("driver", check_cards),
    ("management library", check_library),
    ("IOMMU", check_passthrough),
    ("daemon", check_daemon),
    ("probes", check_probes),
    ("settings file", check_settings_file),
    ("kubelet", check_kubelet),
    ("kubelet's version", check_kubelet_version),
    ("DRA", check_dra),
    ("HAMi", check_hami),
    ("node events", check_node_events),
    ("containerd", check_runtime),
    ("CDI file", check_cdi_file),
    ("limits", check_limits),
    ("mounts", check_mounts),
)
"""The checks in the order of the table, each with the name of its row if it hangs."""


@partial(with_settings, despite_file=True)
def doctor(
    *,
    settings: Settings,
    json: Annotated[
        bool,
        Parameter(
            help="Print one JSON document (its schema: doctor.schema.json in "
            "share/br-gpu-device-plugin/schema of the Python environment)."
        ),
    ] = False,
    report: Annotated[
        Path | None,
        Parameter(
            allow_leading_hyphen=True,
            help="Write the files read from the host to this tar.gz, without secrets; - for standard "
            "output, if the root is read-only (the table then goes to standard error).",
        ),
    ] = None,
) -> int:
    """Check what allocating cards needs, and print what is missing and what to do.

    Give it the daemon's flags. Exit status: 0; 1 with a warning; 2 with a failure; 3 if --report could
    not be written.
    """
    return run_doctor(settings, as_json=json, report=report)


def run_doctor(settings: Settings, *, as_json: bool, report: Path | None) -> int:
    """Print the table or the document, write the requested report, and return the exit status.

    Raises `UsageError` if both the document and the report are to go to standard output.
    """
    to_stdout = report == STANDARD_OUTPUT
    if to_stdout and as_json:
        raise UsageError("--report -: leave out --json; the report holds the document, doctor.json")
    checks = trio.run(examine, settings)
    document = document_of(settings, checks)
    if as_json:
        json.dump(document, sys.stdout, indent=2)
        print()
    else:
        with redirect_stdout(sys.stderr) if to_stdout else nullcontext():
            _print_checks(checks)
    if report is not None:
        try:
            trio.run(partial(write_report, report, settings, document, deadline=DEADLINE))
        except (OSError, ReportTooSlow) as error:
            why = (
                why_unwritable(report, error, "--report")
                if isinstance(error, OSError)
                else f"--report: {error}"
            )
            print(f"br-gpu-device-plugin: {why}", file=sys.stderr)
            return _EXIT_NO_REPORT
    return exit_status(checks)


def _print_checks(checks: Sequence[Check]) -> None:
    worst_first = sorted(checks, key=lambda check: check.verdict.rank)
    rows = [
        Row(
            (each.verdict.value, each.name, each.seen),
            [f"what to do: {each.advice}"] if each.advice else [],
        )
        for each in worst_first
    ]
    print_table(("RESULT", "CHECK", "SEEN"), rows)


async def examine(
    settings: Settings, examinations: Sequence[tuple[str, Examination]] = _EXAMINATIONS
) -> list[Check]:
    """Return the rows of all checks, in their order."""
    found: list[list[Check]] = [[] for _ in examinations]

    async def run_one(position: int, name: str, examination: Examination) -> None:
        found[position] = await _bounded(name, lambda: list(examination(settings)))

    async with trio.open_nursery() as nursery:
        for position, (name, examination) in enumerate(examinations):
            nursery.start_soon(run_one, position, name, examination)
    return [check for checks in found for check in checks]


async def _bounded(name: str, run: Callable[[], list[Check]]) -> list[Check]:
    try:
        with trio.fail_after(DEADLINE):
            return await trio.to_thread.run_sync(run, abandon_on_cancel=True)
    except trio.TooSlowError:
        advice = "a driver or disk hangs: see `dmesg` on the node, and reboot it if this goes on"
        return [failure(name, f"the check did not end in {DEADLINE:g} s", advice)]
    except OSError as error:  # from a path in a state that no check expected
        return [
            unknown(
                name,
                ": ".join(filter(None, (error.filename, reason_of(error)))),
                cure_of(error),
            )
        ]
    except PluginError as error:  # what every check may meet, as a host that cannot be read
        return [unknown(name, f"{error}")]
    except Exception as error:  # noqa: BLE001 - a bug in one check must not cost the rows of the others
        seen = f"a bug ended the check: {type(error).__name__}: {error}"
        return [unknown(name, seen, "please report it")]


def document_of(settings: Settings, checks: Sequence[Check]) -> dict[str, Any]:
    """Return the document of `--json`; its shape is schema/doctor.schema.json."""
    return {
        "version": __version__,
        "settings": settings.differing(),
        "in_pod": in_pod(),
        "exit_status": exit_status(checks),
        "checks": [
            {
                "name": check.name,
                "result": check.verdict.value,
                "seen": check.seen,
                "advice": check.advice,
            }
            for check in checks
        ],
    }
