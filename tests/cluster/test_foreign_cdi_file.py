"""A foreign CDI file stays or is overwritten, as the operator chose."""

import stat
from collections.abc import Callable
from pathlib import Path

from tests.cluster.host import NodeHost
from tests.cluster.node import Node
from tests.cluster.pods import container, run_pod
from tests.e2e.daemon import DaemonProcess

FILE = Path("/etc/cdi/biren.yaml")
FOREIGN = """\
cdiVersion: 0.5.0
kind: birentech.com/gpu
devices:
- name: card_0
  containerEdits:
    deviceNodes: [{path: /dev/biren/card_0}]
containerEdits:
  deviceNodes: [{path: /dev/biren-m}]
"""


def test_without_overwrite_only_the_cards_of_a_foreign_file_are_offered(
    node: Node, host: NodeHost, new_daemon: Callable[..., DaemonProcess]
) -> None:
    FILE.write_text(FOREIGN)
    host.add_gpus({0: 1, 1: 1})
    new_daemon("--cdi-feature").start()
    node.view.wait_for({"card_0"})
    assert run_pod(node.api, "one", container(gpu=1))["main"].cards == "card_0"
    assert FILE.read_text() == FOREIGN


def test_with_overwrite_a_foreign_file_is_replaced_and_every_card_is_offered(
    node: Node, host: NodeHost, new_daemon: Callable[..., DaemonProcess]
) -> None:
    FILE.write_text(FOREIGN)
    host.add_gpus({0: 1, 1: 1})
    new_daemon("--cdi-feature", "--overwrite-cdi-config").start()
    node.view.wait_for({"card_0", "card_1"})
    assert run_pod(node.api, "two", container(gpu=2))["main"].opens == {
        "biren/card_0", "biren/card_1", "biren-m",
    }  # fmt: skip
    assert stat.S_IMODE(FILE.stat().st_mode) == 0o644
