"""How long the kubelet has no list when one daemon ends and another takes over."""

import signal
import time

from tests.bench.calls import EIGHT_WHOLE
from tests.bench.faults import GPU
from tests.bench.figures import Figure, spread
from tests.bench.rounds import rounds
from tests.support.simulated_node import Node

_PATIENCE = 10.0


def measure_hand_overs() -> list[Figure]:
    """With the test kubelet; what a real kubelet adds, the cluster session measures."""
    return [
        *spread("hand-over to list", [_hand_over()], None, 30),
        *spread("hand-over to list, CDI", [_hand_over("--cdi-feature")], None, 40),
    ]


def _hand_over(*flags: str) -> list[float]:
    """Milliseconds from the end of the old daemon's stream to the new daemon's complete list."""
    times = []
    with Node(EIGHT_WHOLE) as node:
        flags = (*flags, f"--cdi-dir={node.plugins.with_name('cdi')}")
        node.start_daemon(*flags)
        for _ in rounds(30, 12):
            assert node.daemon is not None
            serving, log = node.daemon, node.plugins.with_name("successor")
            node.daemon = node.launch(*flags, log=log)
            deadline = time.monotonic() + _PATIENCE
            while "standing_by" not in log.read_text():
                assert time.monotonic() < deadline, "the successor does not stand by"
                time.sleep(0.02)  # no event shows that a file has grown
            log.unlink()
            mark = node.kubelet.mark()
            serving.send_signal(signal.SIGTERM)
            ended = node.kubelet.wait_for_event("stream_ended", resource=GPU, since=mark)
            times.append((node.wait_for_lists(mark) - float(ended["at"])) * 1000)
            serving.wait(_PATIENCE)
    return times
