"""The holder of a lock is found by its line in /proc/locks."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from biren_plugin.host.lock_holder import LockHolder, find_lock_holder, pid_of_lock

DEVICE = os.makedev(0xFD, 1)
LOCKS = """\
1: POSIX  ADVISORY  WRITE 100 fd:01:7 0 EOF
2: FLOCK  ADVISORY  WRITE 200 fd:02:7 0 EOF
3: FLOCK  ADVISORY  WRITE 300 fd:01:7 0 EOF
3: -> FLOCK  ADVISORY  WRITE 400 fd:01:8 0 EOF
4: FLOCK  ADVISORY  WRITE -1 fd:01:9 0 EOF
5: OFDLCK ADVISORY  WRITE -1 fd:01:7 0 EOF
6: FLOCK
"""


@pytest.mark.parametrize(
    ("inode", "pid"),
    [(7, 300), (8, None), (9, None), (10, None)],
    ids=["held", "only waited for", "by a process of another namespace", "not held"],
)
def test_the_holder_is_the_process_on_the_directorys_own_line(inode: int, pid: int | None) -> None:
    assert pid_of_lock(LOCKS, DEVICE, inode) == pid


def test_file_system_that_shows_another_device_is_told_by_the_inode() -> None:
    assert pid_of_lock(LOCKS, os.makedev(0, 0x31), 7) == 200


def test_a_lock_with_the_same_inode_on_another_file_system_accuses_nobody() -> None:
    assert pid_of_lock(LOCKS, os.makedev(0xFD, 0x31), 7) is None


def test_the_process_that_holds_the_lock_is_found_with_its_command(tmp_path: Path) -> None:
    script = (
        "import fcntl, os, sys; "
        "fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", script, str(tmp_path), "backup"]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        found = find_lock_holder(tmp_path)
        process.communicate("")
    assert found is not None
    assert found.pid == process.pid
    assert f"process {process.pid} ({sys.executable}"[:40] in str(found)
    assert len(found.command) <= 80
    assert find_lock_holder(tmp_path) is None


def test_a_process_without_a_readable_command_is_shown_by_its_id(tmp_path: Path) -> None:
    assert str(LockHolder(7, "")) == "process 7"
    assert find_lock_holder(tmp_path / "none") is None


def test_the_callers_own_lock_is_found_too(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        found = find_lock_holder(tmp_path)
    finally:
        os.close(descriptor)
    assert found is not None
    assert found.pid == os.getpid()
