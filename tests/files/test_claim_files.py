"""The CDI files of claims: what `write` returns is what a later reader finds."""

import errno
import fcntl
from pathlib import Path

import pytest

from biren_plugin.core.cdi.spec import Spec
from biren_plugin.errors import ClaimFileUnusable, why_unwritable
from biren_plugin.files.claim_files import ClaimFiles, in_turn


def spec_of(*names: str) -> Spec:
    return {
        "cdiVersion": "0.6.0",
        "kind": "gpu.birentech.com/claim",
        "devices": [{"name": name, "containerEdits": {"env": ["A=é"]}} for name in names],
    }


def test_a_written_file_is_found_as_it_was_returned(tmp_path: Path) -> None:
    files = ClaimFiles(tmp_path)
    written = files.write("uid-a", spec_of("uid-a:cards:gpu-0000-0c-00-0", "a foreign name"))
    assert files.read_all() == {"uid-a": written}
    assert [each.device for each in written.devices] == ["gpu-0000-0c-00-0"]


def test_a_file_that_was_written_again_is_not_the_earlier_one(tmp_path: Path) -> None:
    files = ClaimFiles(tmp_path)
    first = files.write("uid-a", spec_of())
    second = files.write("uid-a", spec_of())
    assert not files.remove_if("uid-a", first)
    assert files.remove_if("uid-a", second)
    assert files.read_all() == {}


def test_a_lock_that_another_instance_keeps_is_named_with_what_to_do(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    text = f"another instance has held {lock} for 0 s: end it if it hangs"
    with in_turn(lock, 1), pytest.raises(ClaimFileUnusable, match=text), in_turn(lock, 0):
        pass


def test_a_lock_that_cannot_be_created_or_taken_is_an_error_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "gone" / "lock"
    with (
        pytest.raises(ClaimFileUnusable, match=r"; create .*, or correct --kubelet-root"),
        in_turn(lock, 0),
    ):
        pass

    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    text = "cannot lock .*: No locks available; its file system has no locks"
    with pytest.raises(ClaimFileUnusable, match=text), in_turn(tmp_path / "lock", 0):
        pass


def test_a_disk_that_hangs_is_one_piece_of_advice() -> None:
    error = TimeoutError(errno.ETIMEDOUT, "creating it takes more than 5 s, as when a disk hangs")
    assert why_unwritable(Path("/a/b"), error, "--status-dir") == (
        "cannot write /a/b: creating it takes more than 5 s, as when a disk hangs; see `dmesg` on the node"
    )
