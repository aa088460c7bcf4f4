"""Under DRA: what Prepare costs, how soon a fault is a stored taint, how soon deleted slices are back."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.calls import EIGHT_WHOLE
from tests.bench.faults import SICK, sleep_out_of_step
from tests.bench.figures import Figure, spread
from tests.bench.idle import SETTLE, idle
from tests.bench.rounds import rounds
from tests.kubelet.dra_manager import DraManager, DriverInstance
from tests.kubelet.pod_resources import PodResources
from tests.support.api_server import SLICES, Object, StandInApiServer, stand_in_api_server
from tests.support.simulated_node import Node, Usage

_NODE = "n1"
_TMPFS = Path("/dev/shm")
"""As /var/run is: what is written there is not waited for."""
_CLAIMS = "/apis/resource.k8s.io/v1/namespaces/team/resourceclaims"


def measure_dra(claims: int = 120, seconds: float = 20.0) -> list[Figure]:
    """With the API server on the same machine; what it takes for a GET is known, the rest is ours."""
    with (
        Node(EIGHT_WHOLE) as other,
        Node(EIGHT_WHOLE) as node,
        stand_in_api_server() as api,
        _daemon(node, api) as kubelet,
    ):
        other.start_daemon("--recover-after=0")
        time.sleep(SETTLE)  # what follows a start is not idling
        plain, memory = other.resident(), node.resident()
        (plain_idle, _), (share, wakeups) = idle([Usage(other.pid), Usage(node.pid)], seconds)
        other.stop_daemon()
        devices = list(_stored(api))
        driver = kubelet.instance()
        _prepare(driver, api, "warm", devices[0])
        calls = [
            [_prepare(driver, api, f"c{number}", devices[0]) for number in range(claims)]
            for _ in rounds(4, 15, least=1)
        ]
        faults = [_fault(node, api, round_) for round_ in rounds(40, 30)]
        deletions = [_delete_slices(api, round_) for round_ in rounds(40, 30)]
        after = node.resident()
    return [
        *spread("Prepare", [[total for total, _ in each] for each in calls]),
        *spread(
            "Prepare, own part", [[total - api for total, api in each] for each in calls], None, 5
        ),
        *spread("device node gone to taint stored", [faults], None, 300),
        *spread("slices deleted to back", [deletions], None, 1000),
        Figure("resident memory with DRA", "MiB", memory, 40),
        Figure("memory of DRA", "MiB", memory - plain, 4),
        Figure("resident memory with DRA, after the load", "MiB", after, round(memory + 3, 1)),
        Figure("idle with the device plugin", "% of a core", plain_idle),
        Figure("idle with DRA", "% of a core", share, round(plain_idle + 0.1, 2)),
        Figure("idle with DRA, wake-ups", "a second", wakeups),
    ]


@contextmanager
def _daemon(node: Node, api: StandInApiServer) -> Iterator[DraManager]:
    folder = node.plugins.parent
    claims = tempfile.TemporaryDirectory(prefix="br", dir=_TMPFS if _TMPFS.is_dir() else None)
    api.put(f"/api/v1/nodes/{_NODE}", {"metadata": {"name": _NODE, "uid": "uid-n1"}})
    kubelet = DraManager(folder / "kubelet")
    pods = PodResources(folder / "pod-resources", dict)
    pods.claims = kubelet.claims
    pods.start()
    try:
        with kubelet:
            node.daemon = node.launch(
                "--recover-after=0", "--offer-by=dra", f"--kubelet-root={folder / 'kubelet'}",
                f"--claim-cdi-dir={claims.name}", f"--kubeconfig={api.kubeconfig(folder)}",
                f"--node-name={_NODE}",
            )  # fmt: skip
            kubelet.wait_for("registered")
            api.wait_until(lambda: len(_stored(api)) == len(EIGHT_WHOLE))
            yield kubelet
            node.stop_daemon()
    finally:
        pods.stop()
        claims.cleanup()


def _prepare(
    driver: DriverInstance, api: StandInApiServer, name: str, device: str
) -> tuple[float, float]:
    """Milliseconds of a Prepare of one card: all, and the API server's."""
    results = [{"request": "cards", "driver": "gpu.birentech.com", "pool": _NODE, "device": device}]
    claim = {
        "metadata": {"name": name, "uid": f"uid-{name}"},
        "status": {"allocation": {"devices": {"results": results}}},
    }
    api.put(f"{_CLAIMS}/{name}", claim)
    protos = driver.protos
    asked = [protos.Claim(namespace="team", name=name, uid=f"uid-{name}")]
    before = api.spent
    began = time.perf_counter()
    answer = driver.stub.NodePrepareResources(protos.NodePrepareResourcesRequest(claims=asked))
    took = time.perf_counter() - began
    server = api.spent - before
    assert answer.claims[f"uid-{name}"].devices, answer
    driver.stub.NodeUnprepareResources(protos.NodeUnprepareResourcesRequest(claims=asked))
    return took * 1000, server * 1000


def _fault(node: Node, api: StandInApiServer, round_: int) -> float:
    sleep_out_of_step(round_)
    began = time.monotonic()
    node.host.pull_node(SICK)
    api.wait_until(lambda: any(each.get("taints") for each in _stored(api).values()))
    took = time.monotonic() - began
    node.host.put_node_back(SICK)
    api.wait_until(lambda: not any(each.get("taints") for each in _stored(api).values()))
    return took * 1000


def _delete_slices(api: StandInApiServer, round_: int) -> float:
    sleep_out_of_step(round_)
    began = time.monotonic()
    for each in api.slices():
        api.delete(f"{SLICES}/{each['metadata']['name']}")
    api.wait_until(lambda: len(_stored(api)) == len(EIGHT_WHOLE))
    return (time.monotonic() - began) * 1000


def _stored(api: StandInApiServer) -> dict[str, Object]:
    """The devices in the stored slices, by name."""
    return {each["name"]: each for one in api.slices() for each in one["spec"]["devices"]}
