"""An operator's settings take effect in real pods: excluded cards, the monitoring resource, the variable."""

from collections.abc import Callable

from tests.cluster.host import NodeHost
from tests.cluster.node import Node
from tests.cluster.pods import WHOLE, container, run_pod
from tests.e2e.daemon import DaemonProcess

MONITORING = "birentech.com/gpu-monitoring"
PRINTS = "echo indexes $BIREN_VISIBLE_DEVICES\n"


def test_an_exporter_sees_every_offered_card_while_pods_hold_them(
    host: NodeHost, node: Node, new_daemon: Callable[..., DaemonProcess]
) -> None:
    host.add_gpus(dict.fromkeys(range(4), 1))
    flags = ["--exclude=card_2", "--monitoring-resource", "--visible-devices=index"]
    new_daemon(*flags).start()
    offered = {"card_0", "card_1", "card_3"}
    node.view.wait_for(offered)
    node.view.wait_for({"monitoring"}, MONITORING)
    exporter = container()
    exporter["resources"] = {"limits": {MONITORING: "1"}}
    seen = run_pod(node.api, "exporter", exporter)["main"]
    assert set(seen.cards.split(",")) == offered
    assert seen.opens == {"biren-m", *(f"biren/{each}" for each in offered)}
    job = container(gpu=3)
    job["command"][2] = PRINTS + job["command"][2]
    held = run_pod(node.api, "job", job)["main"]
    assert set(held.cards.split(",")) == offered, "the exporter holds no card"
    assert node.api.log("job", "main").splitlines()[0] == "indexes 0,1,2"
    node.view.wait_for(offered, WHOLE)
