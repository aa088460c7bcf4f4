"""One cluster for all tests; for each test a host, and a daemon on it that is not started."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import figures, tried
from tests.cluster.containerd import Containerd
from tests.cluster.deployment import Deployment, prepare
from tests.cluster.dra import DraNode
from tests.cluster.host import NodeHost, daemon_on
from tests.cluster.node import Node
from tests.cluster.processes import Processes
from tests.cluster.programs import STATE_VARIABLE, missing_for_kubernetes
from tests.e2e.daemon import DaemonProcess
from tests.manifests.tools import find_tool


@pytest.fixture(scope="session")
def state() -> Path:
    """The node's own directory, inside its namespaces."""
    if STATE_VARIABLE not in os.environ:
        pytest.skip("these tests need namespaces of their own: run nox -s cluster, as root")
    return Path(os.environ[STATE_VARIABLE])


@pytest.fixture(scope="session")
def node(state: Path) -> Iterator[Node]:
    """The running cluster. Its containers end with the namespace."""
    if (why := missing_for_kubernetes()) is not None:
        pytest.skip(why)
    node = Node(state / "cluster")
    try:
        node.start()
        yield node
    finally:
        node.processes.kill_all()


@pytest.fixture(scope="module")
def containerd(state: Path, request: pytest.FixtureRequest) -> Iterator[Containerd]:
    """Only containerd, or the cluster's if there is one, without its kubelet, which ends sandboxes of no pod."""
    if missing_for_kubernetes() is None:
        cluster: Node = request.getfixturevalue("node")
        cluster.stop_kubelet()
        yield cluster.containerd
        cluster.start_kubelet()
        return
    processes = Processes(state / "alone/logs")
    alone = Containerd(state / "alone", processes)
    try:
        alone.start()
        alone.import_image()
        yield alone
    finally:
        processes.kill_all()


@pytest.fixture(scope="session")
def for_figures(request: pytest.FixtureRequest) -> bool:
    """Whether this session's figures are written: tests measure more often then, for the sake of the tail."""
    return request.config.getoption("figures") is not None


@pytest.fixture
def host(state: Path) -> Iterator[NodeHost]:
    """A host with a driver and without a card."""
    tree = NodeHost(state / "host")
    yield tree
    tree.close()
    shutil.rmtree(tree.root)


@pytest.fixture
def new_daemon(host: NodeHost) -> Iterator[Callable[..., DaemonProcess]]:
    """Creates daemons with default paths, except for the host's root."""
    made: list[DaemonProcess] = []

    def new(*flags: str) -> DaemonProcess:
        made.append(daemon_on(host, *flags))
        return made[-1]

    yield new
    for daemon in made:
        if daemon.running:
            daemon.end()
    for daemon in made:
        daemon.assert_no_bug()


@pytest.fixture
def daemon(new_daemon: Callable[..., DaemonProcess]) -> DaemonProcess:
    """The node's daemon, not started."""
    return new_daemon()


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Removes the pods and CDI files of each test."""
    yield
    if "node" in request.fixturenames and missing_for_kubernetes() is None:
        node: Node = request.getfixturevalue("node")
        node.api.delete_pods()
    for directory in (Path("/etc/cdi"), Path("/run/cdi")):
        if STATE_VARIABLE in os.environ:
            for file in directory.glob("*"):
                file.unlink()


@pytest.fixture
def eight_cards(host: NodeHost, node: Node, daemon: DaemonProcess) -> set[str]:
    """Eight whole cards, offered by the daemon and counted by the kubelet; their names."""
    host.add_gpus(dict.fromkeys(range(8), 1))
    daemon.start()
    cards = {f"card_{number}" for number in range(8)}
    node.view.wait_for(cards)
    return cards


@pytest.fixture(scope="session")
def prepared(node: Node) -> Node:
    """The node with our image, its labels, and the definitions of kinds that our objects need."""
    prepare(node)
    return node


@pytest.fixture
def deployment(prepared: Node, host: NodeHost, tmp_path: Path) -> Iterator[Deployment]:
    """A node of four GPUs to which nothing is deployed yet."""
    host.add_gpus(dict.fromkeys(range(4), 1))
    deployment = Deployment(prepared, tmp_path, host.root / "sys")
    yield deployment
    prepared.api.delete_pods()
    deployment.remove()


@pytest.fixture(scope="module")
def dra_node(node: Node, state: Path) -> Iterator[DraNode]:
    """The cluster's objects for DRA, and a host of nine cards: three whole, two halves, four quarters."""
    find_tool("kubectl")  # which renders the manifests
    tree = NodeHost(state / "dra-host")
    tree.add_gpus({0: 1, 1: 1, 2: 2, 3: 4, 4: 1})
    found = DraNode(node, tree)
    try:
        found.deploy()
        yield found
    finally:
        found.end_drivers()
        found.remove()
        tree.close()
        shutil.rmtree(tree.root)


@pytest.fixture
def dra(dra_node: DraNode) -> Iterator[DraNode]:
    """The node with one serving driver; objects of a test are deleted after it."""
    dra_node.ensure_driver()
    dra_node.wait_for_devices(9)
    yield dra_node
    dra_node.ensure_driver()
    dra_node.clean()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the measured figures and the versions of the programs."""
    for line in figures.as_lines():
        terminalreporter.write_line(line)
    if file := terminalreporter.config.getoption("figures"):
        figures.write(file)
    passed = [each for each in terminalreporter.getreports("passed") if each.when == "call"]
    if passed and STATE_VARIABLE in os.environ:
        terminalreporter.write_line(f"with {tried.versions()}")
    if terminalreporter.config.getoption("write_tried"):
        names = [Path(each.nodeid.partition("::")[0]).stem for each in passed]
        tried.write(Counter(name.removeprefix("test_") for name in names))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options that record the real parts' answers instead of comparing them, and that write figures and docs/tried.md."""
    parser.addoption("--json", type=Path, dest="figures", metavar="FILE")
    parser.addoption("--write-conversations", action="store_true", dest="write_conversations")
    parser.addoption("--write-tried", action="store_true", dest="write_tried")
