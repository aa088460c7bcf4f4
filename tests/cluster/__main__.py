"""`python -m tests.cluster`: runs tests, or the soak, on a real node in namespaces of its own.

All tests run on four nodes side by side: tests mostly wait for their node, and a minute without one's API
server delays no test on another. Mounts, processes and network end with the namespaces; `left_behind`
removes the scratch directory and the node's cgroup. Other words go to pytest.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, TextIO

from tests.cluster.programs import (
    KUBERNETES_VARIABLE,
    UnusablePrograms,
    check_kubernetes,
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
_TESTS: Final = "tests/cluster"
_WITHOUT_KUBELET: Final = "tests/cluster/test_containerd.py"
_DEPLOYED: Final = "test_deployment"
"""The tests that need the image."""
_BESIDE: Final = (
    ("test_long_outage", "test_dra_restarts", "test_containerd"),
    ("test_hami", "test_dra", "test_deployment_dra"),
    (
        "test_conversations",
        "test_api_conversations",
        "test_alerts",
        "test_allocating",
        "test_deployment",
    ),
)
"""Modules that run on further nodes, beside the others: all nodes take about the same time. The image is built
meanwhile, so what waits for it comes last."""
_CHOOSES: Final = ("-k", "-m", "--lf", "--last-failed", "--write-conversations")
"""Options that select tests: those run on one node, since a second one might have none."""
_ENDS_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL")


def main() -> int:
    """The exit status of pytest or the soak: 0 with one line if a node cannot be started here.

    2 if the caller named programs that cannot be used.
    """
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
    if os.geteuid() != 0:
        print("cluster: skipped, run the session as root")
        return 0
    try:
        os.environ["PATH"] = search_path()
        check_kubernetes()
    except UnusablePrograms as error:
        print(f"cluster: {error}")
        return 2
    unusable, without_kubelet = missing_for_containerd(), missing_for_kubernetes()
    if unusable is not None or (arguments.soak and without_kubelet):
        print(f"cluster: skipped, {unusable or without_kubelet}")
        return 0
    if without_kubelet is not None:
        print(f"cluster: only what needs no kubelet runs, {without_kubelet}")
    named = any(Path(word.partition("::")[0]).exists() for word in words)
    if arguments.soak:
        command = ["tests.cluster.soak", str(arguments.soak), str(arguments.seed)]
        return _run_sessions([command])
    if without_kubelet is None:
        fetch.fetch_binaries()
    if named or without_kubelet is not None:
        if without_kubelet is None and any(_DEPLOYED in word for word in words):
            image_archive.main()
        return _run_sessions([["pytest", *words, *([] if named else [_WITHOUT_KUBELET])]])
    if any(word.startswith(_CHOOSES) for word in words):
        image_archive.main()
        return _run_sessions([["pytest", *words, _TESTS]])
    return _run_sessions(_all_tests(words))


def _all_tests(words: list[str]) -> Iterator[list[str]]:
    """The command of each node, which starts before the next one is asked for."""
    beside = [[f"tests/cluster/{each}.py" for each in names] for names in _BESIDE]
    with image_archive.build_lock():
        yield ["pytest", *words, *(f"--ignore={path}" for each in beside for path in each), _TESTS]
        # One node's figures are written: those of the first.
        others = [word for word in words if not word.startswith("--json")]
        for paths in beside:
            yield ["pytest", *others, *paths]
        image_archive.main()  # here, where the network of the machine is: a node has only its own


def _run_sessions(commands: Iterable[list[str]]) -> int:
    """The greatest exit status of the modules, which run side by side, each on a node of its own.

    The first one's output is shown as it comes, that of the others after it.
    """
    # A session that gets this signal cleans up, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with contextlib.ExitStack() as stack:
        waiting = iter(commands)
        first = _start(stack, next(waiting))
        others = []
        for command in waiting:
            out = stack.enter_context(tempfile.TemporaryFile("w+"))
            others.append((_start(stack, command, out), out))
        statuses = [first.wait()]
        for process, out in others:
            statuses.append(process.wait())
            out.seek(0)
            shutil.copyfileobj(out, sys.stdout)
        return max(statuses)


def _start(
    stack: contextlib.ExitStack, command: list[str], out: TextIO | None = None
) -> "subprocess.Popen[bytes]":
    """Starts a module in namespaces of its own; the stack removes what the module leaves behind."""
    state = tempfile.mkdtemp(prefix="br-cluster-")
    cgroup = Path(state).name
    tidier = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.left_behind", state, cgroup],
        stdin=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    stack.callback(tidier.wait)
    assert tidier.stdin is not None
    stack.callback(tidier.stdin.close)
    inside = [sys.executable, "-m", "tests.cluster.isolation", state, cgroup]
    process = subprocess.Popen(
        [*_ENDS_WITH_US, "unshare", *_NAMESPACES, *inside, sys.executable, "-m", *command],
        stdout=out, stderr=out and subprocess.STDOUT,
    )  # fmt: skip
    stack.callback(process.wait)
    stack.callback(process.kill)  # and with it each process of its namespaces
    return process


if __name__ == "__main__":
    sys.exit(main())
