"""`python -m tests.cluster`: runs tests, or the soak, on a real node in namespaces of its own.

Mounts, processes and network end with the namespaces; the scratch directory and the node's cgroup are
removed here. Other words go to pytest.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.cluster.programs import (
    KUBERNETES_VARIABLE,
    missing_for_containerd,
    missing_for_kubernetes,
    search_path,
)
from tests.manifests import fetch, image_archive

_NAMESPACES: Final = (
    "--mount",
    "--net",
    "--pid",
    "--ipc",
    "--fork",
    "--kill-child",
    "--mount-proc",
)
_WITHOUT_KUBELET: Final = "tests/cluster/test_containerd.py"
_DEPLOYED: Final = "test_deployment"
"""The tests that need an image, kubectl and helm."""
_CGROUPS: Final = Path("/sys/fs/cgroup")
_CGROUP_DEADLINE: Final = 10.0
"""Seconds: the kernel ends the namespace's processes in much less."""


def main() -> int:
    """The exit status of pytest or the soak; 0 where the node cannot be started, with one line."""
    parser = argparse.ArgumentParser(prog="nox -s cluster --", description=__doc__)
    parser.add_argument("--binaries", metavar="DIR", help=f"instead of ${KUBERNETES_VARIABLE}")
    parser.add_argument("--soak", type=float, metavar="SECONDS", help="random events, no tests")
    parser.add_argument("--seed", type=int, default=1, help="of the soak")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the tests' figures")
    arguments, words = parser.parse_known_args()
    if arguments.json is not None:
        words.append(f"--json={arguments.json.absolute()}")
    if arguments.binaries:
        os.environ[KUBERNETES_VARIABLE] = arguments.binaries
    os.environ["PATH"] = search_path()
    unusable = missing_for_containerd() if os.geteuid() == 0 else "run the session as root"
    without_kubelet = missing_for_kubernetes()
    if unusable is not None or (arguments.soak and without_kubelet):
        print(f"cluster: skipped, {unusable or without_kubelet}")
        return 0
    if without_kubelet is not None:
        print(f"cluster: only what needs no kubelet runs, {without_kubelet}")
    tests = "tests/cluster" if without_kubelet is None else _WITHOUT_KUBELET
    named = any(Path(word.partition("::")[0]).exists() for word in words)
    command = ["pytest", *words, *([] if named else [tests])]
    if arguments.soak:
        command = ["tests.cluster.soak", str(arguments.soak), str(arguments.seed)]
    elif without_kubelet is None and (not named or any(_DEPLOYED in word for word in words)):
        # Out here there is a network; the node has none but its own.
        fetch.main()
        image_archive.main()
    return _run_isolated([sys.executable, "-m", *command])


def _run_isolated(command: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what is here goes in that case too
    cgroup = f"br-cluster-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="br-cluster-") as state:
        inside = [sys.executable, "-m", "tests.cluster.isolation", state, cgroup, *command]
        try:
            return subprocess.run(["unshare", *_NAMESPACES, *inside], check=False).returncode
        finally:
            remove_cgroup(cgroup)


def remove_cgroup(name: str) -> None:
    """Removes the cgroup from each hierarchy. Raises OSError if processes stay in it."""
    deadline = time.monotonic() + _CGROUP_DEADLINE
    for top in [*_CGROUPS.glob(f"*/{name}"), *_CGROUPS.glob(name)]:
        while top.exists():
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):  # busy: its processes are ending
                    Path(folder).rmdir()
            if top.exists() and time.monotonic() > deadline:
                top.rmdir()
            time.sleep(0.05)  # the kernel tells nobody when a cgroup is empty


if __name__ == "__main__":
    sys.exit(main())
