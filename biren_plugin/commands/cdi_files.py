"""`cdi generate` and `cdi check`: the CDI file as one look at the node makes it."""

import os
import sys
from pathlib import Path
from typing import Final

import attrs

from biren_plugin.core.cdi.compare import compare, duplicates
from biren_plugin.core.cdi.spec import Spec, spec_for
from biren_plugin.core.inventory.keeper import InventoryKeeper
from biren_plugin.core.model import Inventory
from biren_plugin.core.observed import Observed
from biren_plugin.core.parse.vendor import CDI_FILE
from biren_plugin.core.settings import ContainerRuntime
from biren_plugin.errors import CdiFileUnusable, CdiSpecInvalid
from biren_plugin.files.cdi_file import Format, load, remove_leftover, render, write
from biren_plugin.host.driver_cards import DriverCardReader
from biren_plugin.host.host_paths import resolve, under
from biren_plugin.host.readers import read_once
from biren_plugin.host.vfio_groups import VfioGroupReader

RUNTIME_FOLDERS: Final = ("/etc/cdi", "/var/run/cdi")
"""Where runtimes look for specs, on the host; a device in a later folder wins over an earlier one."""
STDOUT: Final = Path("-")


@attrs.frozen
class Look:
    """Whose node is looked at, and what its containers are to get: the daemon's flags."""

    host_root: Path
    container_runtime: ContainerRuntime
    mount_host_path: bool
    mount_dri_device: bool

    def inventory(self) -> Inventory:
        """What the node holds; nothing is remembered, so a split counts as it looks now."""
        if self.container_runtime == "kata":
            snapshot = read_once(VfioGroupReader(self.host_root))
        else:
            snapshot = read_once(
                DriverCardReader(
                    self.host_root,
                    mount_host_path=self.mount_host_path,
                    mount_dri_device=self.mount_dri_device,
                )
            )
        return InventoryKeeper().update(Observed(snapshot), 0.0)


def generate(
    look: Look, cdi_dir: Path, output: Path | None, form: Format, *, overwrite: bool
) -> bool:
    """Writes the node's spec to `output`, or to its place in `cdi_dir`; False if there is another.

    JSON goes to standard output unless `output` names a file: two files with the same devices in
    `cdi_dir` would leave runtimes with neither.

    What it did, or why it did not, is a line on standard error. Raises `CdiFileUnusable`.
    """
    inventory = look.inventory()
    lacking = [f"containers will lack {absent}" for absent in inventory.host.absent]
    for sentence in (*inventory.unsettled, *lacking):
        _say(sentence)
    spec = spec_for(inventory.lists)
    if spec is None:
        _say("no Biren card on this host: a CDI file must hold a device, so none is written")
        return False
    if output is None and form == "json":
        output = STDOUT
    if output == STDOUT:
        sys.stdout.write(render(spec, form))
        return True
    path = output or cdi_dir / CDI_FILE
    remove_leftover(path)
    if os.path.lexists(path) and not overwrite:
        same = _says(path, spec)
        _say(
            f"{path} says the same already"
            if same
            else f"{path} is there and says something else: --overwrite replaces it"
        )
        return same
    write(path, render(spec, form))
    _say(f"{path}: {len(spec['devices'])} devices")
    return True


def _says(path: Path, spec: Spec) -> bool:
    try:
        return load(path) == spec
    except CdiSpecInvalid:
        return False


def check(look: Look, cdi_dir: Path) -> bool:
    """Prints a line for each way in which the CDI file is not as the node needs it; True if none."""
    needed, lines = findings(look, cdi_dir)
    path = cdi_dir / CDI_FILE
    for line in lines or [f"{path}: as the node needs it" if needed else "no Biren card, no file"]:
        print(line)
    return not lines


def findings(look: Look, cdi_dir: Path) -> tuple[Spec | None, list[str]]:
    """What the node needs, None without a card; and each way in which the file is not so."""
    path = cdi_dir / CDI_FILE
    needed = spec_for(look.inventory().lists)
    lines = []
    try:
        found = load(path)
    except CdiFileUnusable as error:
        lines.append(f"{error}")
    else:
        if found is not None:
            lines += compare(str(path), found, needed)
        elif needed is not None:
            lines.append(f"{path}: missing; `br-gpu-device-plugin cdi generate` writes it")
    if needed is not None:
        lines += duplicates(str(path), needed, _other_specs(look.host_root, path))
    return needed, lines


def _other_specs(host_root: Path, path: Path) -> dict[str, Spec]:
    """What runtimes load besides the file at `path`, by path; what they do not load is no matter."""
    real = [resolve(host_root, folder) for folder in RUNTIME_FOLDERS]
    folders = [path.parent, *(under(host_root, folder) for folder in real if folder is not None)]
    files = {
        file.resolve(): file
        for folder in folders
        for file in sorted(folder.glob("*"))
        if file.suffix in (".yaml", ".json")
    }
    files.pop(path.resolve(), None)
    loaded = {str(file): _loaded(file) for file in files.values()}
    return {name: spec for name, spec in loaded.items() if spec is not None}


def _loaded(path: Path) -> Spec | None:
    try:
        return load(path)
    except CdiFileUnusable:
        return None


def _say(text: str) -> None:
    print(text, file=sys.stderr)
