"""`status`: reads the daemon's socket and shows the answer, as a table for people or JSON for programs."""

import json
import socket
import sys
import time
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from biren_plugin.commands.node_problem import names_of_device, report_problem
from biren_plugin.commands.tables import Row, print_cards, print_line, print_table
from biren_plugin.core.health.modes import ProbeMode, describe_modes
from biren_plugin.core.setting_field import DEFAULT_STATUS_DIR, STATUS_SOCKET
from biren_plugin.errors import DiskHangs, StatusUnavailable, UsageError, reason_and_cure
from biren_plugin.host.in_time import in_time

OPEN_DEADLINE: Final = 3.0
ANSWER_DEADLINE: Final = 5.0
REDRAW: Final = 1.0
"""Seconds."""
_LONGEST: Final = 4 * 1024 * 1024
"""Bytes; 256 cards take 70 KiB."""
_PROC: Final = Path("/proc")
_KEYS: Final = frozenset(
    [
        "version",
        "pid",
        "time",
        "role",
        "problems",
        "probes",
        "dra",
        "hami",
        "driver_loaded",
        "excluded",
        "resources",
        "claims",
        "holders_known",
    ]
)
"""The parts of the document that are shown."""
_CLEAR: Final = "\033[H\033[2J"


def status(
    *,
    json: bool = False,
    watch: bool = False,
    problem: bool = False,
    status_dir: Path = DEFAULT_STATUS_DIR,
) -> int:
    """Show the running daemon's resources and cards, and which pod holds each card.

    Parameters
    ----------
    json
        Print one JSON document a line (its schema: status.schema.json in
        share/br-gpu-device-plugin/schema of the Python environment).
    watch
        Refresh it each second, until Ctrl-C.
    problem
        Print one line about the cards that have a fault, for Node Problem Detector. Exit status: 0: none.
        1: some. 2: unknown.
    status_dir
        The directory of the daemon's socket, as in the daemon's flag.
    """
    if problem:
        if json or watch:
            raise UsageError("--problem: leave out --json and --watch")
        return report_problem(status_dir, ask)
    show_status(status_dir, as_json=json, watch=watch)
    return 0


def ask(folder: Path) -> dict[str, Any]:
    """Return the daemon's status document. Blocks; raises `StatusUnavailable`."""
    path = folder / STATUS_SOCKET
    deadline = time.monotonic() + ANSWER_DEADLINE
    answer = bytearray()
    server = 0
    try:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(ANSWER_DEADLINE)
            in_time(partial(peer.connect, str(path)), OPEN_DEADLINE, f"opening {path}")
            server = _server_of(peer)
            while (piece := peer.recv(65536)) and len(answer) < _LONGEST:
                answer += piece
                if time.monotonic() > deadline:
                    raise TimeoutError
        document: dict[str, Any] = json.loads(answer)
        if not isinstance(document, dict):
            raise ValueError
    except DiskHangs as error:
        raise StatusUnavailable(f"{error}") from error
    except PermissionError as error:
        raise StatusUnavailable(
            f"{path}: only root may ask the daemon; try with sudo, or as the daemon's own user"
        ) from error
    except NotADirectoryError as error:
        raise StatusUnavailable(f"{folder} is not a directory; see --status-dir") from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise StatusUnavailable(
            f"no daemon runs here: no process serves {path}; run `status` in the daemon's container, "
            "with its --status-dir; a daemon that has just started needs a second"
        ) from error
    except (TimeoutError, BlockingIOError) as error:  # the latter: its queue of callers is full
        raise StatusUnavailable(
            f"{path}: the daemon did not answer in {ANSWER_DEADLINE:g} s: {_why_silent(server)}"
        ) from error
    except (ConnectionError, ValueError) as error:
        why = (
            "the daemon is ending, serves eight others, or had a bug, which its log shows; try again"
            if not answer
            else "what answers there is not this daemon, or broke off; see --status-dir"
        )
        raise StatusUnavailable(
            f"{path}: the daemon did not answer with its status: {why}"
        ) from error
    except OSError as error:
        raise StatusUnavailable(f"{path}: {reason_and_cure(error, 'see --status-dir')}") from error
    if lacking := sorted(_KEYS - document.keys()):
        raise StatusUnavailable(
            f"{path}: the daemon of version {document.get('version')} does not report "
            f"{', '.join(lacking)}; run the `status` of its own version, as in its container"
        )
    return document


def _server_of(peer: socket.socket) -> int:
    """Return the process that listens at the other end; 0 if it is not visible from here."""
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(raw[:4], sys.byteorder)


def _why_silent(pid: int) -> str:
    """Return what keeps the process from answering, as `/proc` shows it, and what to do."""
    try:
        state = (_PROC / f"{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return "it is stopped or hung; see its log, and restart its pod"
    if state in ("T", "t"):
        return (
            f"process {pid} is stopped (SIGSTOP or a debugger); continue it with `kill -CONT {pid}`"
        )
    if state == "D":
        return f"process {pid} waits for a disk or a driver; see `dmesg` on the node"
    return f"process {pid} is starting, hung, or starved of CPU; see its log, and restart its pod"


def show_status(folder: Path, *, as_json: bool, watch: bool) -> None:
    """Print the status, once or repeatedly until Ctrl-C. Raises `StatusUnavailable`.

    While it watches, a missing daemon is reported and waited for: an update may be under way.
    """
    if not watch:
        _print(ask(folder), as_json=as_json)
        return
    with suppress(KeyboardInterrupt):
        while True:
            if sys.stdout.isatty():
                sys.stdout.write(_CLEAR)
            try:
                _print(ask(folder), as_json=as_json)
            except StatusUnavailable as error:
                print(error, file=sys.stderr)
            sys.stdout.flush()
            time.sleep(REDRAW)


def _print(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(document, ensure_ascii=False))
        return
    print(
        f"br-gpu-device-plugin {document['version']}, process {document['pid']}: "
        f"{document['role']}, at {document['time']}"
    )
    for problem in document["problems"]:
        print_line(f"! {problem}")
    modes = {each["name"]: ProbeMode(each["mode"], each["by"]) for each in document["probes"]}
    if not_enforced := describe_modes(modes):
        print(f"probes not enforced: {not_enforced}")
    if document["dra"] is not None:
        _print_driver(document["dra"])
    if document["hami"] is not None:
        _print_hami(document["hami"], document["time"])
    if document["node_events"] is not None:
        _print_node_events(document["node_events"])
    if not document["resources"] and not document["excluded"]:
        found = (
            "No Biren card" if document["driver_loaded"] else "No driver, or no /sys of the host"
        )
        print(f"{found}: see `br-gpu-device-plugin doctor`.")
        return
    print()
    print_table(
        ("RESOURCE", "REGISTERED", "HEALTHY", "LIST SENT"),
        [
            Row(
                (
                    each["resource"],
                    "yes" if each["registered"] else "NO",
                    f"{sum(device['healthy'] for device in each['devices'])} "
                    f"of {len(each['devices'])}",
                    _span(each["last_list"], document["time"]),
                )
            )
            for each in document["resources"]
        ],
    )
    print()
    print_cards(
        ("CARD", "RESOURCE", "PRODUCT", "HEALTH", "FOR", "POD"),
        [
            _row(
                each["resource"], device, document["time"], holders_known=document["holders_known"]
            )
            for each in document["resources"]
            for device in each["devices"]
        ]
        + [
            Row(
                (each["card"], each["resource"], "-", "excluded", "-", "-"),
                [f"excluded by --exclude {each['by']}"],
            )
            for each in document["excluded"]
        ],
        ("PRODUCT",),
    )
    if document["claims"]:
        _print_claims(document["claims"])


def _print_driver(driver: dict[str, Any]) -> None:
    known = "registered" if driver["registered"] else "NOT registered"
    services = (
        f", called as {', '.join(driver['used_services'])}" if driver["used_services"] else ""
    )
    print(f"DRA: driver {known} with the kubelet{services}")
    print(
        f"DRA: {driver['stored_devices']} of {driver['wanted_devices']} devices in the API server"
    )
    if driver["forbidden"]:
        print(f"  refused rights: {', '.join(driver['forbidden'])}")
    if driver["dropped_fields"]:
        print(f"  off in this cluster, and dropped: {', '.join(driver['dropped_fields'])}")


def _print_claims(claims: list[dict[str, Any]]) -> None:
    print()
    print_table(
        ("CLAIM", "POD", "DEVICES", "CDI FILE"),
        [
            Row(
                (
                    _name(each["claim"]) or f"uid {each['uid']}",
                    _name(each["pod"]) or "unknown to the kubelet",
                    ", ".join(each["devices"]) or "-",
                    "there" if each["has_file"] else "MISSING",
                )
            )
            for each in claims
        ],
    )


def _name(found: dict[str, str] | None) -> str:
    return f"{found['namespace']}/{found['name']}" if found is not None else ""


def _print_hami(hami: dict[str, Any], now: str) -> None:
    known = "reported" if hami["registered"] else "NOT reported"
    lock = f"locked for {hami['locked_for']}" if hami["locked_for"] else "not locked"
    last = f"last: {_span(hami['last_report'], now)} ago" if hami["last_report"] else "never yet"
    print_line(f"HAMi: cards {known} ({last}), node {lock}")
    for text in hami["mismatches"]:
        print_line(f"  {text}")


def _print_node_events(events: dict[str, Any]) -> None:
    dropped = f", {events['dropped']} not written" if events["dropped"] else ""
    print(f"Events about the node: {events['written']} written{dropped}")
    if events["trouble"] is not None:
        print_line(f"  {events['trouble']}")


def _row(resource: str, device: dict[str, Any], now: str, *, holders_known: bool) -> Row:
    holder = device["holder"]
    held = f"{holder['namespace']}/{holder['pod']}" if holder is not None else "-"
    cells = (
        device["card"],
        resource,
        device["product"] or "-",
        "Healthy" if device["healthy"] else "Unhealthy",
        _span(device["since"], now),
        held if holders_known else "unknown",
    )
    notes = [*device["reasons"], *(f"warning: {text}" for text in device["warnings"])]
    return Row(cells, notes, names_of_device(device))


def _span(since: str | None, now: str) -> str:
    """Return the time between two timestamps in one unit: `3 h`."""
    if since is None:
        return "-"
    seconds = int((datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{max(seconds, 0)} s"
