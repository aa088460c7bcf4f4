"""A CDI file is written whole or not at all, and nothing but a regular file is ever replaced."""

import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biren_plugin import __version__
from biren_plugin.core.cdi.spec import MAX_SIZE, spec_for
from biren_plugin.errors import CdiFileUnusable, CdiSpecInvalid
from biren_plugin.files import cdi_file
from tests.support.cards import GPU, devices, listed

SPEC = spec_for([listed(GPU, *devices(GPU, 0, 1))])
assert SPEC is not None
TEXT = cdi_file.render(SPEC, "yaml")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "cdi").mkdir()
    return tmp_path / "cdi/biren.yaml"


@pytest.fixture
def old(path: Path) -> Path:
    """Return the path of an existing, older file."""
    path.write_text("old\n")
    return path


def folder_of(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


def test_everyone_can_read_the_file_whatever_the_umask(path: Path) -> None:
    before = os.umask(0o077)
    try:
        cdi_file.write(path, TEXT)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert folder_of(path) == ["biren.yaml"]


def test_a_written_file_reads_back_the_same(path: Path) -> None:
    assert cdi_file.load(path) is None
    cdi_file.write(path, TEXT)
    assert cdi_file.load(path) == SPEC
    assert SPEC is not None
    cdi_file.write(path, cdi_file.render(SPEC, "json"))
    assert cdi_file.load(path) == SPEC


def test_file_names_its_writer_and_is_one_document_without_references() -> None:
    first, *others = TEXT.splitlines()
    assert first.startswith(f"# Written by br-gpu-device-plugin {__version__}")
    assert not [line for line in others if line.startswith("---") or "&" in line or "*" in line]


def test_a_writer_killed_at_any_step_leaves_the_old_file_or_the_new_one(old: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_writer", str(old)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not result.stderr
    *killed, last = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(killed) > 20, "each system call is a step, and each return from one"
    content, kept, renewed = "old\n", 0, 0
    for each in killed:
        new = f"round {each['step']}\n" * 1000
        assert each["content"] in (content, new)
        kept, renewed = kept + (each["content"] == content), renewed + (each["content"] == new)
        content = each["content"]
    assert kept, "some were killed before they had renamed the file"
    assert renewed, "and some after"
    assert last["ended"]
    assert last["content"] == f"round {last['step']}\n" * 1000
    assert folder_of(old) == ["biren.yaml"], "leftovers of killed writers are gone"


def test_the_leftover_of_a_killed_writer_is_removed(old: Path) -> None:
    (old.parent / ".biren.yaml.tmp").write_text("half of")
    cdi_file.remove_leftover(old)
    assert folder_of(old) == ["biren.yaml"]
    cdi_file.remove_leftover(old)
    assert old.read_text() == "old\n"


@contextmanager
def writer_at_work(path: Path) -> Iterator[Path]:
    """Hold the lock of another writer, and yield its temporary file."""
    temporary = path.parent / ".biren.yaml.tmp"
    with temporary.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield temporary


def test_two_writers_do_not_mix_their_texts(old: Path) -> None:
    with writer_at_work(old) as temporary:
        with pytest.raises(CdiFileUnusable, match="another process is writing it"):
            cdi_file.write(old, TEXT)
        cdi_file.remove_leftover(old)
        assert temporary.exists(), "it belongs to the other writer"
    assert old.read_text() == "old\n"
    cdi_file.write(old, TEXT)
    assert old.read_text() == TEXT


def test_a_symlink_is_not_replaced(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    path.symlink_to(target)
    with pytest.raises(CdiFileUnusable, match="is a symlink that leads nowhere"):
        cdi_file.load(path)
    for _ in range(2):  # a dangling link, and a link to a file
        with pytest.raises(CdiFileUnusable, match=r"biren.yaml is a symlink and was not replaced"):
            cdi_file.write(path, TEXT)
        with pytest.raises(CdiFileUnusable, match="is a symlink"):
            cdi_file.remove(path)
        assert path.is_symlink()
        target.write_text("kept\n")
    assert target.read_text() == "kept\n"


def test_a_directory_is_not_replaced(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(CdiFileUnusable, match="is a directory and was not replaced: remove it, or"):
        cdi_file.write(path, TEXT)
    with pytest.raises(CdiFileUnusable, match="is not a regular file"):
        cdi_file.load(path)
    assert path.is_dir()


def test_a_fifo_does_not_block_the_reader(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(CdiFileUnusable, match="is not a regular file"):
        cdi_file.load(path)
    with pytest.raises(CdiFileUnusable, match="was not replaced"):
        cdi_file.write(path, TEXT)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "No space left on device; make room on its file system"),
        (errno.EDQUOT, "Disk quota exceeded; make room in its owner's quota"),
        (errno.EROFS, "Read-only file system; mount its directory for writing"),
        (errno.EACCES, "Permission denied; run it as root, or as the owner of the directory"),
        (errno.EPERM, "Operation not permitted; its file system or security policy forbids it"),
        (errno.EIO, "Input/output error; its disk is at fault; see `dmesg` on the node"),
        (errno.ELOOP, "Too many levels of symbolic links; see --cdi-dir"),
    ],
    ids=errno.errorcode.get,
)
def test_a_failing_disk_leaves_the_old_file(
    old: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CdiFileUnusable, match=f"^cannot write {old}: {remedy}"):
        cdi_file.write(old, TEXT)
    assert old.read_text() == "old\n"
    assert folder_of(old) == ["biren.yaml"]


def test_a_missing_directory_may_be_a_typing_error_and_is_not_created(tmp_path: Path) -> None:
    typo = tmp_path / "typo" / "cdi"
    with pytest.raises(CdiFileUnusable, match=f"; create {typo}, or correct --output$"):
        cdi_file.write(typo / "biren.yaml", TEXT, flag="--output")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_runtimes_read_by_default_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cdi_file, "RUNTIME_CDI_DIRS", (f"{tmp_path}/etc/cdi",))
    cdi_file.write(tmp_path / "etc/cdi/biren.yaml", TEXT)
    assert cdi_file.load(tmp_path / "etc/cdi/biren.yaml") == SPEC


def test_a_file_in_place_of_the_directory_is_reported_as_an_unusable_file(tmp_path: Path) -> None:
    (tmp_path / "cdi").touch()
    for path in (tmp_path / "cdi/biren.yaml", tmp_path / "cdi/deeper/biren.yaml"):
        with pytest.raises(CdiFileUnusable, match="cannot write"):
            cdi_file.write(path, TEXT)
        with pytest.raises(CdiFileUnusable, match="cannot read"):
            cdi_file.load(path)
        with pytest.raises(CdiFileUnusable, match="cannot remove"):
            cdi_file.remove(path)


def test_removing_a_missing_file_is_not_an_error(old: Path) -> None:
    cdi_file.remove(old)
    cdi_file.remove(old)
    assert folder_of(old) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", ": not a valid CDI spec: the document: no mapping"),
        (b"kind: a\nkind: b\n", ", line 2, column 1: not YAML or JSON: found duplicate key"),
        (b"a: [", ", line 1, column "),
        (b"kind: b\na: 'c\nd: e\n", ", line 2, column 4: not YAML or JSON: found unexpected end"),
        (b"kind: b\ndevices\nx: y\n", ", line 2, column 1: not YAML or JSON: could not find"),
        (b"\xff\xfe\x00", "not YAML or JSON"),
        (b"[" * 1000, ": not YAML or JSON"),
        (
            b"cdiVersion: 0.5.0\nkind: birentech.com/gpu\ndevices:\n- name: card_0\n  nope: 1\n",
            ", line 5, column 3: not a valid CDI spec: a device: unknown field 'nope'",
        ),
        (
            b"cdiVersion: 0.5.0\nkind: birentech.com/gpu\ndevices:\n- name: card_0\n",
            ", line 4, column 3: not a valid CDI spec: device card_0: no containerEdits",
        ),
        (
            b"cdiVersion: 0.5.0\nkind: birentech.com/gpu\ndevices:\n- name: card_0\n"
            b"  containerEdits:\n    deviceNodes:\n    - path: /dev/null\n      type: x\n",
            ", line 8, column 7: not a valid CDI spec: type 'x' of device card_0",
        ),
        (
            b"cdiVersion: 0.5.0\nkind: birentech.com/gpu\ndevices:\n- 5\n",
            ", line 4, column 1: not a valid CDI spec: a device: no mapping",
        ),
        (
            b"cdiVersion: 9.0\nkind: birentech.com/gpu\n",
            ", line 1, column 1: not a valid CDI spec: cdiVersion of the document",
        ),
        (b"!!bool x", ": not YAML or JSON"),
        (b"!!int ''", ": not YAML or JSON"),
        (b"- 0x_\n- 2001-99-99\n", "not "),
        (b" " * (MAX_SIZE + 1), "more than 4194304 bytes"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_file_that_no_runtime_loads_is_invalid(path: Path, content: bytes, said: str) -> None:
    path.write_bytes(content)
    with pytest.raises(CdiSpecInvalid, match=f"^{path}.*{said}") as caught:
        cdi_file.load(path)
    assert "\n" not in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=60), st.text("ab01:-!?[]{}&*#|>'\"%@.,~ \n\t", max_size=60)))
def test_any_file_content_is_read_or_refused(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "biren.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CdiSpecInvalid):
        cdi_file.load(path)


def test_a_reused_anchor_is_not_a_fault(path: Path) -> None:
    spec = TEXT.replace("permissions: rw", "permissions: &a rw")
    assert spec.count("&a") > 1
    path.write_text(spec)
    assert cdi_file.load(path) == SPEC


def test_only_the_first_document_counts(path: Path) -> None:
    path.write_text(f"{TEXT}---\nkind: [\n")
    assert cdi_file.load(path) == SPEC


def test_the_daemon_imports_no_yaml_library_before_it_needs_one() -> None:
    code = "import sys, biren_plugin.cli, biren_plugin.daemon; print('ruamel.yaml' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "False\n"
