"""Containers get the driver's files that exist, and the missing ones are reported."""

import errno
import os
from pathlib import Path

import pytest

from biren_plugin.core.inventory_log import remark_inventory
from biren_plugin.core.model import HostFacts, Inventory, Mount
from biren_plugin.host.driver_files import read_host_facts
from tests.support.recorded import HOSTS, copy_host

TREE = "/usr/local/birensupa/driver"
DRIVER = f"{TREE}/biren-smi"
LIBRARY = f"{DRIVER}/lib/libbiren-ml.so.1.12.0"
VGEM_ABSENT = "a render node of vgem in /dev/dri (on the node: `modprobe vgem`)"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return copy_host("mixed", tmp_path / "host")


def files(root: Path) -> HostFacts:
    return read_host_facts(root, mount_host_path=True, mount_dri_device=False)


def render_node(root: Path) -> HostFacts:
    return read_host_facts(root, mount_host_path=False, mount_dri_device=True)


def test_unrequested_files_are_not_read() -> None:
    facts = read_host_facts(HOSTS / "empty", mount_host_path=False, mount_dri_device=False)
    assert facts == HostFacts()


def test_files_are_mounted_from_their_real_paths(host: Path) -> None:
    facts = files(host)
    assert facts.mounts == (
        Mount(LIBRARY, "/opt/birentech/lib/libbiren-ml.so"),
        Mount(LIBRARY, "/opt/birentech/lib/libbiren-ml.so.1"),
        Mount(LIBRARY, "/opt/birentech/lib/libbiren-ml.so.1.12.0"),
        Mount(f"{DRIVER}/bin/brsmi", "/opt/birentech/bin/brsmi"),
        Mount(TREE, TREE),
    )
    assert facts.absent == ()


def test_every_version_of_the_library_is_mounted_and_nothing_else(host: Path) -> None:
    for name in ("libbiren-ml.so.2", "libbiren-ml.so.2.bak", "libother.so.1"):
        (host / "usr/lib" / name).touch()
    targets = {mount.container_path.rpartition("/")[2] for mount in files(host).mounts}
    assert "libbiren-ml.so.2" in targets
    assert not targets & {"libbiren-ml.so.2.bak", "libother.so.1"}


def test_a_file_with_a_dangling_link_is_absent_and_not_mounted(host: Path) -> None:
    (host / DRIVER.lstrip("/") / "bin/brsmi").unlink()
    facts = files(host)
    assert facts.absent == ("/usr/bin/brsmi",)
    assert all("brsmi" not in mount.container_path for mount in facts.mounts)


def test_the_drivers_tree_is_mounted_from_its_links_target(host: Path) -> None:
    tree = host / TREE.lstrip("/")
    tree.rename(tree.with_name("driver-1.12.0"))
    tree.symlink_to("driver-1.12.0")
    assert files(host).mounts[-1] == Mount(f"{TREE}-1.12.0", TREE)
    tree.unlink()
    tree.touch()
    assert all(mount.container_path != TREE for mount in files(host).mounts), (
        "it is not a directory"
    )


def test_a_node_without_the_driver_lacks_every_file() -> None:
    facts = files(HOSTS / "empty")
    assert facts.mounts == ()
    assert facts.absent == (
        "/usr/lib/libbiren-ml.so",
        "/usr/lib/libbiren-ml.so.1",
        "/usr/bin/brsmi",
    )


def test_the_control_node_counts_only_as_a_character_device(host: Path) -> None:
    assert files(host).control_node
    control = host / "dev/biren-m"
    control.unlink()
    assert not files(host).control_node
    control.touch()
    assert not files(host).control_node


def test_an_unreadable_control_node_counts_as_missing(host: Path) -> None:
    control = host / "dev/biren-m"
    control.unlink()
    control.symlink_to("x" * 300)
    assert not files(host).control_node


def test_the_render_node_is_vgems_and_not_another_drivers(host: Path) -> None:
    assert render_node(host).dri_node == "/dev/dri/renderD129"
    assert render_node(host).absent == ()


def test_a_node_without_vgem_reports_how_to_load_it(host: Path) -> None:
    (host / "sys/class/drm/renderD129").unlink()
    assert render_node(host) == HostFacts(control_node=True, absent=(VGEM_ABSENT,))
    assert render_node(HOSTS / "empty").absent == (VGEM_ABSENT,)


def test_a_render_node_without_a_driver_is_skipped(host: Path) -> None:
    (host / "sys/devices/platform/ast/driver").unlink()
    assert render_node(host).dri_node == "/dev/dri/renderD129"


def test_a_render_node_missing_from_dev_is_absent(host: Path) -> None:
    (host / "dev/dri/renderD129").unlink()
    facts = render_node(host)
    assert facts.dri_node is None, "a container with a missing node could not start"
    assert facts.absent == (VGEM_ABSENT,)


def test_a_link_into_an_unmounted_directory_is_reported_with_its_target(host: Path) -> None:
    library = host / "usr/lib/libbiren-ml.so.1"
    library.unlink()
    library.symlink_to("/opt/biren/current/libbiren-ml.so.1")
    (host / "usr/bin/brsmi").unlink()
    facts = files(host)
    assert "/opt/biren/current/libbiren-ml.so.1" in facts.why_absent("/usr/lib/libbiren-ml.so.1")
    assert "not mounted" in facts.why_absent("/usr/lib/libbiren-ml.so")
    assert facts.why_absent("/usr/bin/brsmi") == "it is not on the node"
    texts = [each.text for each in remark_inventory(None, Inventory(host=facts, found=1))]
    assert not [text for text in texts if "libbiren" in text and "not on the node" in text]


def test_a_file_that_is_forbidden_is_not_called_missing(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readlink, tree = os.readlink, f"{host}{DRIVER}"

    def refuse(path: str) -> str:
        if path.startswith(tree):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return readlink(path)

    monkeypatch.setattr(os, "readlink", refuse)
    facts = files(host)
    assert "/usr/bin/brsmi" in facts.absent
    assert (
        facts.why_absent("/usr/bin/brsmi")
        == f"it cannot be read ({DRIVER}/bin/brsmi: Permission denied)"
    )
