"""A node is left for good when its DaemonSet is gone or no longer selects it."""

import pytest

from biren_plugin.core.hami.annotations import Object
from biren_plugin.core.hami.leaving import daemonset_of, is_leaving


def daemonset(selector: dict[str, str] | None = None, **metadata: str) -> Object:
    return {"metadata": metadata, "spec": {"template": {"spec": {"nodeSelector": selector}}}}


@pytest.mark.parametrize(
    ("found", "leaves"),
    [
        (None, True),
        (daemonset(deletionTimestamp="2026-11-28T01:35:42Z"), True),
        (daemonset({"birentech.com": "cpu"}), True),
        (daemonset({"birentech.com": "gpu"}), False),
        (daemonset(), False),
    ],
)
def test_a_node_is_left_when_no_pod_follows(found: Object | None, leaves: bool) -> None:
    node = {"metadata": {"labels": {"birentech.com": "gpu", "zone": "a"}}}
    assert is_leaving(found, node) is leaves


def test_a_node_without_labels_is_left_by_a_daemonset_that_selects_some() -> None:
    assert is_leaving(daemonset({"a": "b"}), {"metadata": {}})


def test_a_pod_names_its_daemonset() -> None:
    owners = [{"kind": "Other", "name": "x"}, {"kind": "DaemonSet", "name": "br-gpu-device-plugin"}]
    assert daemonset_of({"metadata": {"ownerReferences": owners}}) == "br-gpu-device-plugin"
    assert daemonset_of({"metadata": {}}) is None
    assert daemonset_of({}) is None
