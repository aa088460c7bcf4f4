"""`cdi generate` and `cdi check`: most of their flags are the daemon's."""

from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import App, Parameter

from biren_plugin.commands.flags import (
    CdiDir,
    HostRoot,
    MountDriDevice,
    MountHostPath,
    Runtime,
    Switch,
)
from biren_plugin.core.settings import DEFAULT_CDI_DIR

_EXIT_DIFFERS: Final = 1

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
    host_root
        Where the host's /sys, /dev and /usr are found.
    cdi_dir
        The folder of the CDI file.
    """
    from biren_plugin.commands.cdi_files import Look
    from biren_plugin.commands.cdi_files import generate as generate_file

    look = Look(host_root, container_runtime, mount_host_path, mount_dri_device)
    done = generate_file(look, cdi_dir, output, format, overwrite=overwrite)
    return 0 if done else _EXIT_DIFFERS


@cdi.command
def check(
    *,
    container_runtime: Runtime = "runc",
    mount_host_path: MountHostPath = False,
    mount_dri_device: MountDriDevice = False,
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
    host_root
        Where the host's /sys, /dev, /usr, /etc/cdi and /var/run/cdi are found.
    cdi_dir
        The folder of the CDI file.
    """
    from biren_plugin.commands.cdi_files import Look
    from biren_plugin.commands.cdi_files import check as check_file

    look = Look(host_root, container_runtime, mount_host_path, mount_dri_device)
    return 0 if check_file(look, cdi_dir) else _EXIT_DIFFERS
