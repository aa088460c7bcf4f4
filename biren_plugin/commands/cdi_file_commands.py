"""`cdi generate` and `cdi check`: the CDI file that one scan of the node calls for."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import App, Parameter

from biren_plugin.commands.tables import print_line
from biren_plugin.core.cdi.findings import Finding, findings_of
from biren_plugin.core.cdi.spec import Spec, spec_for
from biren_plugin.core.inventory.excluded_cards import without_uuids
from biren_plugin.core.inventory.keeper import InventoryKeeper
from biren_plugin.core.model import Inventory
from biren_plugin.core.observed import Observed
from biren_plugin.core.parse.vendor import CDI_FILE
from biren_plugin.core.settings import DEFAULT_CDI_DIR, ContainerRuntime, Settings
from biren_plugin.errors import CdiFileUnusable, CdiSpecInvalid
from biren_plugin.files.cdi_file import (
    Format,
    is_usual,
    load,
    other_files,
    read,
    remove_leftover,
    render,
    write,
)
from biren_plugin.host.in_time import in_time
from biren_plugin.host.readers import read_host

_EXIT_DIFFERS: Final = 1
_DEADLINE: Final = 10.0
"""Seconds: longer than a scan of a host whose driver hangs, which has an error of its own."""
STDOUT: Final = Path("-")

cdi = App(name="cdi", help="Write the node's CDI file, or compare it with the node.")


@cdi.command
def generate(
    *,
    overwrite: bool = False,
    output: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    format: Literal["yaml", "json"] = "yaml",  # noqa: A002 - the flag's name
    container_runtime: ContainerRuntime = "runc",
    mount_host_path: bool = False,
    mount_dri_device: bool = False,
    exclude: tuple[str, ...] = (),
    host_root: Path = Path("/"),
    cdi_dir: Path = DEFAULT_CDI_DIR,
) -> int:
    """Write the CDI file of this node, whole or not at all.

    Exit status: 0: the file has what the node needs. 1: it does not, because a different file exists and
    --overwrite was not given, because the node has no card, or because the file cannot be written. 2: a
    wrong command line.

    Parameters
    ----------
    overwrite
        Replace an existing file with different content.
    output
        The file to write, or - for standard output; by default biren.yaml in --cdi-dir, and
        standard output for JSON.
    format
        yaml or json.
    container_runtime
        The node's container runtime: runc or kata.
    mount_host_path
        Mount the driver's library, tool and tree into each container.
    mount_dri_device
        Give each container the render node of vgem.
    exclude
        A card to leave out, by name or PCI address.
    host_root
        Where the host's /sys, /dev and /usr are found.
    cdi_dir
        The directory of the CDI file.
    """
    settings = Settings(
        container_runtime=container_runtime,
        mount_host_path=mount_host_path,
        mount_dri_device=mount_dri_device,
        exclude=exclude,
        host_root=host_root,
        cdi_dir=cdi_dir.absolute(),
    )
    done = generate_file(settings, output, format, overwrite=overwrite)
    return 0 if done else _EXIT_DIFFERS


@cdi.command
def check(
    *,
    container_runtime: ContainerRuntime = "runc",
    mount_host_path: bool = False,
    mount_dri_device: bool = False,
    exclude: tuple[str, ...] = (),
    host_root: Path = Path("/"),
    cdi_dir: Path = DEFAULT_CDI_DIR,
) -> int:
    """Compare the CDI file with this node, and with the other files that runtimes read.

    Prints a line for each finding: missing, unreadable, invalid, of a wrong kind, stale, or a
    duplicate in another file. Exit status: 0: no finding. 1: some. 2: a wrong command line.

    Parameters
    ----------
    container_runtime
        The node's container runtime: runc or kata.
    mount_host_path
        The file should mount the driver's library, tool and tree.
    mount_dri_device
        The file should give each container the render node of vgem.
    exclude
        A card that the file should not contain, by name or PCI address.
    host_root
        Where the host's /sys, /dev, /usr, /etc/cdi and /var/run/cdi are found.
    cdi_dir
        The directory of the CDI file.
    """
    settings = Settings(
        container_runtime=container_runtime,
        mount_host_path=mount_host_path,
        mount_dri_device=mount_dri_device,
        exclude=exclude,
        host_root=host_root,
        cdi_dir=cdi_dir.absolute(),
    )
    return 0 if check_file(settings) else _EXIT_DIFFERS


def _inventory(settings: Settings) -> Inventory:
    """Return the inventory by one scan: without a history, a split counts as it is now."""
    return InventoryKeeper(without_uuids(settings.exclude)).update(
        Observed(read_host(settings)), 0.0
    )


def generate_file(
    settings: Settings, output: Path | None, form: Format, *, overwrite: bool
) -> bool:
    """Write the node's spec to `output`, or to its place in `cdi_dir`; return False if a different file exists.

    JSON goes to standard output unless `output` names a file: two files with the same devices in
    `--cdi-dir` would make runtimes ignore both.

    Prints the outcome as a line on standard error. Raises `CdiFileUnusable`, `DiskHangs` and
    `HostUnreadable`.
    """
    inventory = _inventory(settings)
    host = inventory.host
    lacking = [f"containers will lack {each}: {host.why_absent(each)}" for each in host.absent]
    for sentence in (*inventory.unsettled, *inventory.unmatched, *lacking):
        _print_aside(sentence)
    spec = spec_for(inventory.lists)
    if spec is None:
        _print_aside(
            f"{'none of the cards can be offered' if inventory.found else 'no Biren card on this host'}: "
            "a CDI file needs a device, so none is written"
        )
        return False
    if output is None and form == "json":
        output = STDOUT
    if output == STDOUT:
        sys.stdout.write(render(spec, form))
        return True
    path = output or settings.cdi_dir / CDI_FILE
    flag = "--cdi-dir" if output is None else "--output"
    put = partial(_put, path, spec, form, flag, overwrite=overwrite)
    return in_time(put, _DEADLINE, f"writing {path} ({flag})")


def _put(path: Path, spec: Spec, form: Format, flag: str, *, overwrite: bool) -> bool:
    """Write `spec` to `path`, to which `flag` leads; return False if a different file exists."""
    if not path.parent.is_dir() and not is_usual(path):  # a typing error creates nothing
        raise CdiFileUnusable(
            f"cannot write {path}: there is no directory {path.parent}; create it, or correct {flag}"
        )
    remove_leftover(path)
    if os.path.lexists(path) and not overwrite:
        same = _holds(path, spec)
        _print_aside(
            f"{path} is up to date"
            if same
            else f"{path} exists with different content: --overwrite replaces it"
        )
        return same
    write(path, render(spec, form), flag=flag)
    _print_aside(f"{path}: {len(spec['devices'])} devices")
    return True


def _holds(path: Path, spec: Spec) -> bool:
    try:
        return load(path) == spec
    except CdiSpecInvalid:
        return False


def check_file(settings: Settings) -> bool:
    """Print a line for each fault of the CDI file; return True if there is none."""
    path = settings.cdi_dir / CDI_FILE
    compare = partial(check_node, settings)
    needed, findings = in_time(compare, _DEADLINE, f"reading {path} and the files beside it")
    well = f"{path}: has what the node needs" if needed else "no Biren card, no file"
    for line in [each.text for each in findings] or [well]:
        print_line(line)
    return not findings


def check_node(settings: Settings) -> tuple[Spec | None, tuple[Finding, ...]]:
    """Return what the file should hold, None without a card, and the faults of the file.

    Raises `HostUnreadable`.
    """
    path = settings.cdi_dir / CDI_FILE
    needed = spec_for(_inventory(settings).lists)
    others = [read(each) for each in other_files(settings.host_root, path)]
    return needed, findings_of(read(path), needed, others)


def _print_aside(text: str) -> None:
    print(text, file=sys.stderr)
