"""The benchmark's clients and the daemon that they measure."""

from tests.bench.scale import measure_nodes


def test_a_node_is_measured_right_after_its_daemon_has_registered() -> None:
    figures = measure_nodes((8,), starts=1, calls=10)
    assert {"list built and sent", "Allocate, p50"} <= {each.name for each in figures}
