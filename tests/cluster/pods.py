"""Pods whose containers print the devices and variables that they have."""

from typing import Any, Final

import attrs

from tests.cluster.api import PODS, Api, Object
from tests.cluster.images import BUSYBOX
from tests.cluster.isolation import NODE_NAME
from tests.cluster.processes import poll

WHOLE: Final = "birentech.com/gpu"
HALF: Final = "birentech.com/1-2-gpu"
QUARTER: Final = "birentech.com/1-4-gpu"
LOOK: Final = """\
cd /dev
for node in biren/* biren-m; do
  test -c $node || continue
  # No driver serves the tests' device numbers: a process that may open the node gets "No such device".
  (: < $node) 2>&1 | grep -q 'No such device' && opens=yes || opens=no
  echo node $node $(stat -c '%t:%T' $node) $opens
done
echo cards $BR_PHY_CARDS
echo end
"""
"""The first part of a container's command."""
STAY: Final = "trap exit TERM; sleep infinity & wait"
"""The second part: the container stays, and ends at once on SIGTERM."""

_REFUSED: Final = ("UnexpectedAdmissionError", "TopologyAffinityError", "OutOf")
"""Beginnings of the reasons of such events."""


@attrs.frozen
class Inside:
    """What a container found: its nodes with their numbers, those that open, and the variable."""

    nodes: dict[str, str]
    opens: set[str]
    cards: str

    @classmethod
    def read(cls, text: str) -> "Inside":
        """From what `LOOK` printed."""
        lines = [line.split() for line in text.splitlines()]
        nodes = {line[1]: line[2] for line in lines if line[0] == "node"}
        opens = {line[1] for line in lines if line[0] == "node" and line[3] == "yes"}
        return cls(nodes, opens, next(" ".join(each[1:]) for each in lines if each[0] == "cards"))


def container(
    name: str = "main", *, gpu: int = 0, half: int = 0, quarter: int = 0, stays: bool = True
) -> dict[str, Any]:
    """A container with so many cards; it prints its devices, then stays or ends."""
    wanted = {WHOLE: gpu, HALF: half, QUARTER: quarter}
    return {
        "name": name,
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", LOOK + (STAY if stays else "")],
        "resources": {"limits": {each: str(count) for each, count in wanted.items() if count}},
    }


def start_pod(api: Api, name: str, *containers: dict[str, Any], **spec: Any) -> None:
    """Creates a pod, bound to the node without the scheduler unless `nodeName` is given."""
    body = {
        "metadata": {"name": name},
        "spec": {
            "nodeName": NODE_NAME,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "containers": list(containers),
            **spec,
        },
    }
    api.create(PODS, body)


def run_pod(api: Api, name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Inside]:
    """Runs a pod; what each of its containers found, by container."""
    start_pod(api, name, *containers, **spec)
    phase = api.wait_for_phase(name, "Running", "Succeeded", "Failed")["status"]["phase"]
    assert phase != "Failed", api.about(name)
    names = [each["name"] for each in (*spec.get("initContainers", ()), *containers)]
    return {each: look_inside(api, name, each) for each in names}


def refusal_of(api: Api, name: str) -> Object | None:
    """The event of the kubelet's refusal; the pod's status follows up to ten seconds later."""
    return next((each for each in api.events(name) if each["reason"].startswith(_REFUSED)), None)


def look_inside(api: Api, name: str, container_name: str = "main") -> Inside:
    """What a container found, once its output is complete."""

    def look() -> str | None:
        text = api.log(name, container_name)
        return text if text.endswith("end\n") else None

    return Inside.read(poll(look, f"the log of {name}/{container_name}") or "")
