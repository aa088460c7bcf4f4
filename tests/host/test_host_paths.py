"""Paths below a host's root lead where they would lead on the host itself."""

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.core.parse.card import NodeState
from biren_plugin.host.host_paths import node_state, resolve, under
from tests.support.examples import examples


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/real.so").touch()
    return tmp_path


def link(root: Path, path: str, target: str) -> None:
    (root / path).symlink_to(target)


def test_paths_of_the_host_are_below_its_root() -> None:
    assert under(Path("/host"), "/dev/biren") == Path("/host/dev/biren")
    assert under(Path("/"), "/dev/biren") == Path("/dev/biren")


@pytest.mark.parametrize("path", ["/usr/lib/real.so", "/usr/lib", "/"])
def test_a_path_without_links_resolves_to_itself(root: Path, path: str) -> None:
    assert resolve(root, path) == path


@pytest.mark.parametrize(
    "target",
    ["real.so", "./real.so", "../lib/real.so", "/usr/lib/real.so", "../../../../usr/lib/real.so"],
)
def test_a_link_leads_where_it_leads_on_the_host(root: Path, target: str) -> None:
    link(root, "usr/lib/link.so", target)
    assert resolve(root, "/usr/lib/link.so") == "/usr/lib/real.so"


def test_a_chain_of_links_is_followed_through_directories(root: Path) -> None:
    link(root, "lib", "usr/lib")
    link(root, "usr/lib/a.so", "/lib/b.so")
    link(root, "usr/lib/b.so", "../../lib/real.so")
    assert resolve(root, "/lib/a.so") == "/usr/lib/real.so"


def test_the_parent_of_a_linked_directory_is_its_targets_parent(root: Path) -> None:
    link(root, "lib", "usr/lib")
    assert resolve(root, "/lib/../lib") == "/usr/lib"


@pytest.mark.parametrize("target", ["nowhere", "/usr/lib/nowhere", "real.so/inside", "self.so"])
def test_a_dangling_link_has_no_real_path(root: Path, target: str) -> None:
    link(root, "usr/lib/self.so", target)
    assert resolve(root, "/usr/lib/self.so") is None


def test_a_missing_path_has_no_real_path(root: Path) -> None:
    assert resolve(root, "/usr/bin/brsmi") is None


def test_a_link_to_a_file_outside_the_host_root_leads_nowhere(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "usr" / "outside"
    outside.touch()
    link(root, "usr/lib/out.so", str(outside))
    assert resolve(root, "/usr/lib/out.so") is None


NAMES = st.sampled_from(["a", "b", "c"])
PARTS = st.lists(NAMES, min_size=1, max_size=3)


def add_link(tree: Path, path: list[str], ups: int | None, target: list[str]) -> None:
    """Make a link that goes up this many parents, but never out of the tree; absolute if None."""
    with suppress(OSError):  # its name is taken, or its directory is missing
        place = Path(os.path.realpath(tree.joinpath(*path[:-1]), strict=True), path[-1])
        depth = len(place.parent.relative_to(tree).parts)
        start = [str(tree)] if ups is None else [".."] * min(ups, depth)
        place.symlink_to("/".join([*start, *target]))


@examples(60)
@given(
    folders=st.lists(PARTS, max_size=4),
    links=st.lists(st.tuples(PARTS, st.none() | st.integers(0, 2), PARTS), max_size=5),
    path=PARTS,
)
def test_links_resolve_as_the_kernel_resolves_them(
    folders: list[list[str]], links: list[tuple[list[str], int | None, list[str]]], path: list[str]
) -> None:
    """The oracle's absolute links begin with the tree's path; the host's own links do not."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        for parts in folders:
            tree.joinpath(*parts).mkdir(parents=True, exist_ok=True)
        tree.mkdir(exist_ok=True)
        for link in links:
            add_link(tree, *link)
        try:
            expected = os.path.realpath(tree.joinpath(*path), strict=True)
        except OSError:
            expected = None
        for parent, subfolders, files in os.walk(tree):
            for each in (Path(parent, name) for name in [*subfolders, *files]):
                if each.is_symlink() and (target := os.readlink(each)).startswith(str(tree)):
                    each.unlink()
                    each.symlink_to(target.removeprefix(str(tree)))
        real = resolve(tree, "/" + "/".join(path))
        assert (None if real is None else f"{tree}{real}") == expected


def test_an_inaccessible_path_does_not_count_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "biren-m").touch()
    (tmp_path / "link").symlink_to("/biren-m")
    assert node_state(tmp_path, "/link") is NodeState.OTHER
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse)
        assert node_state(tmp_path, "/link") is NodeState.UNKNOWN
    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", refuse)
        assert node_state(tmp_path, "/dev/biren-m") is NodeState.UNKNOWN


def test_a_double_slash_in_a_link_counts_as_one(root: Path) -> None:
    link(root, "usr/lib/link.so", "//usr//lib/real.so")
    assert resolve(root, "/usr/lib/link.so") == "/usr/lib/real.so"
    assert resolve(root, "//usr/lib/real.so") == "/usr/lib/real.so"
