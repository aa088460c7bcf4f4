"""`cdi generate` and `cdi check`: the CDI file as one scan of the node makes it."""

import os
import sys
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import App, Parameter

from biren_plugin.commands.flags import (
    CdiDir,
    Exclude,
    HostRoot,
    MountDriDevice,
    MountHostPath,
    Runtime,
    Switch,
)
from biren_plugin.core.cdi.findings import Finding, findings_of
from biren_plugin.core.cdi.spec import Spec, spec_for
from biren_plugin.core.inventory.excluded_cards import without_uuids
from biren_plugin.core.inventory.keeper import InventoryKeeper
from biren_plugin.core.model import Inventory
from biren_plugin.core.observed import Observed
from biren_plugin.core.parse.vendor import CDI_FILE
from biren_plugin.core.settings import DEFAULT_CDI_DIR, Settings
from biren_plugin.errors import CdiFileUnusable, CdiSpecInvalid
from biren_plugin.files.cdi_file import (
    Format,
    load,
    other_files,
    read,
    remove_leftover,
    render,
    write,
)
from biren_plugin.host.readers import read_host

_EXIT_DIFFERS: Final = 1
STDOUT: Final = Path("-")

cdi = App(name="cdi", help="Write the node's CDI file, or compare it with the node.")


@cdi.command
def generate(
    *,
    overwrite: Switch = False,
    output: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    format: Literal["yaml", "json"] = "yaml",  # noqa: A002 - the flag's name
    container_runtime: Runtime = "runc",
    mount_host_path: MountHostPath = False,
    mount_dri_device: MountDriDevice = False,
    exclude: Exclude = (),
    host_root: HostRoot = Path("/"),
    cdi_dir: CdiDir = DEFAULT_CDI_DIR,
) -> int:
    """Write the CDI file of this node, whole or not at all.

    Exit status: 0: the file says what the node needs. 1: it does not, because another is there and
    --overwrite was not given, because the node has no card, or because it cannot be written. 2: a
    wrong command line.

    Parameters
    ----------
    overwrite
        Replace a file that is there and says something else.
    output
        Where to write: a file, or - for standard output; by default biren.yaml in --cdi-dir, and
        standard output for JSON.
    format
        yaml or json.
    container_runtime
        What runs the node's containers: runc or kata.
    mount_host_path
        Have the driver's library, tool and tree mounted into each container.
    mount_dri_device
        Give each container the render node of vgem.
    exclude
        A card to leave out, by name or PCI address.
    host_root
        Where the host's /sys, /dev and /usr are found.
    cdi_dir
        The folder of the CDI file.
    """
    settings = Settings(
        container_runtime=container_runtime,
        mount_host_path=mount_host_path,
        mount_dri_device=mount_dri_device,
        exclude=exclude,
        host_root=host_root,
        cdi_dir=cdi_dir,
    )
    done = generate_file(settings, output, format, overwrite=overwrite)
    return 0 if done else _EXIT_DIFFERS


@cdi.command
def check(
    *,
    container_runtime: Runtime = "runc",
    mount_host_path: MountHostPath = False,
    mount_dri_device: MountDriDevice = False,
    exclude: Exclude = (),
    host_root: HostRoot = Path("/"),
    cdi_dir: CdiDir = DEFAULT_CDI_DIR,
) -> int:
    """Compare the CDI file with this node, and with the other files that runtimes read.

    Prints a line for each finding: missing, unreadable, invalid, of a wrong kind, stale, or a
    duplicate in another file. Exit status: 0: no finding. 1: some. 2: a wrong command line.

    Parameters
    ----------
    container_runtime
        What runs the node's containers: runc or kata.
    mount_host_path
        The file should mount the driver's library, tool and tree.
    mount_dri_device
        The file should give each container the render node of vgem.
    exclude
        A card that the file should not hold, by name or PCI address.
    host_root
        Where the host's /sys, /dev, /usr, /etc/cdi and /var/run/cdi are found.
    cdi_dir
        The folder of the CDI file.
    """
    settings = Settings(
        container_runtime=container_runtime,
        mount_host_path=mount_host_path,
        mount_dri_device=mount_dri_device,
        exclude=exclude,
        host_root=host_root,
        cdi_dir=cdi_dir,
    )
    return 0 if check_file(settings) else _EXIT_DIFFERS


def _inventory(settings: Settings) -> Inventory:
    """What the node holds; nothing is remembered, so a split counts as it looks now."""
    return InventoryKeeper(without_uuids(settings.exclude)).update(
        Observed(read_host(settings)), 0.0
    )


def generate_file(
    settings: Settings, output: Path | None, form: Format, *, overwrite: bool
) -> bool:
    """Writes the node's spec to `output`, or to its place in `cdi_dir`; False if there is another.

    JSON goes to standard output unless `output` names a file: two files with the same devices in
    `--cdi-dir` would leave runtimes with neither.

    What it did, or why it did not, is a line on standard error. Raises `CdiFileUnusable` and `HostUnreadable`.
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
            "a CDI file must hold a device, so none is written"
        )
        return False
    if output is None and form == "json":
        output = STDOUT
    if output == STDOUT:
        sys.stdout.write(render(spec, form))
        return True
    path = output or settings.cdi_dir / CDI_FILE
    if output is not None and not output.parent.is_dir():
        raise CdiFileUnusable(f"there is no directory {output.parent}; see --output")
    remove_leftover(path)
    if os.path.lexists(path) and not overwrite:
        same = _holds(path, spec)
        _print_aside(
            f"{path} says the same already"
            if same
            else f"{path} is there and says something else: --overwrite replaces it"
        )
        return same
    write(path, render(spec, form))
    _print_aside(f"{path}: {len(spec['devices'])} devices")
    return True


def _holds(path: Path, spec: Spec) -> bool:
    try:
        return load(path) == spec
    except CdiSpecInvalid:
        return False


def check_file(settings: Settings) -> bool:
    """Prints a line for each way in which the CDI file is not as the node needs it; True if none."""
    needed, findings = check_node(settings)
    path = settings.cdi_dir / CDI_FILE
    well = f"{path}: as the node needs it" if needed else "no Biren card, no file"
    for line in [each.text for each in findings] or [well]:
        print(line)
    return not findings


def check_node(settings: Settings) -> tuple[Spec | None, tuple[Finding, ...]]:
    """What the file should hold, None without a card; and what is wrong with it.

    Raises `HostUnreadable`.
    """
    path = settings.cdi_dir / CDI_FILE
    needed = spec_for(_inventory(settings).lists)
    others = [read(each) for each in other_files(settings.host_root, path)]
    return needed, findings_of(read(path), needed, others)


def _print_aside(text: str) -> None:
    print(text, file=sys.stderr)
