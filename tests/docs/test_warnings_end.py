"""Each warning about something that lasts has an event that ends it; the others say why they have none."""

import ast
from collections.abc import Iterator

from tests.docs.test_events import events, sources

ENDS = {
    "cards_missing": "devices_found",
    "cdi_stale": "cdi_current",
    "claim_file_wrong": "claim_file_right",
    "claims_unknown": "claims_known",
    "connections_full": "connections_free",
    "device_unhealthy": "device_healthy",
    "device_warning": "warning_cleared",
    "disk_hangs": "disk_answers",
    "driver_missing": "devices_found",
    "driver_refused": "driver_registered",
    "driver_too_old": "driver_new_enough",
    "exclude_unmatched": "card_excluded",
    "file_missing": "file_found",
    "folder_missing": "kubelet_found",
    "folder_unreadable": "kubelet_found",
    "folder_unwritable": "folder_writable",
    "gpu_unsettled": "gpu_settled",
    "hami_lock_unreadable": "hami_lock_readable",
    "hami_pods_unknown": "hami_pods_known",
    "hami_unsettled": "hami_settled",
    "holder_idle": "holder_serves",
    "holders_unknown": "holders_known",
    "host_unreadable": "host_readable",
    "inotify_exhausted": "inotify_available",
    "kubelet_missing": "kubelet_found",
    "kubelet_not_serving": "registered",
    "library_hangs": "library_answers",
    "library_lacks": "library_found",
    "library_left_out": "library_found",
    "node_events_unwritten": "node_events_written",
    "probe_suspect": "suspects_cleared",
    "restarts": "runs_again",
    "rival": "rival_cleared",
    "settings_changed": "settings_as_read",
    "slices_refused": "slices_published",
}
"""By warning, the event that ends it."""
MOMENTS = {
    "allocation_refused", "bug", "claim_file_restored", "claim_kept", "claim_refused",
    "folder_replaced", "hami_lock_left", "hami_unmatched", "left_out", "log_dropped", "peer_refused",
    "preference_refused", "preference_short", "stopping",
}  # fmt: skip
"""Something happened, and is over."""
UNCHANGING = {
    "descriptors_few": "the limit of this process",
    "flag_without_effect": "a setting of this process",
    "no_lock": "the kind of file system",
    "setting_unknown": "the environment of this process",
    "slice_fields_dropped": "the cluster's feature gates; an API server that was away is asked again",
}
"""What stays so for as long as the process, and why."""


def warnings(tree: ast.Module) -> Iterator[str]:
    """Names of events that are warnings or errors, at least sometimes."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Name(id=writer) | ast.Attribute(attr=writer),
                args=[ast.Constant(value=str(event)), _, *levels],
                keywords=keywords,
            ):
                is_bad = any(each.arg == "bad" for each in keywords)
                named = {each.id for each in levels if isinstance(each, ast.Name)}
                if (
                    (writer == "begin" and named != {"INFO"})
                    or (writer in ("say", "log_record") and named & {"WARNING", "ERROR"})
                    or (writer == "Remark" and is_bad)
                    or (writer == "_remark" and event in ("device_unhealthy", "device_warning"))
                ):
                    yield event


def test_each_warning_ends_or_says_why_it_does_not() -> None:
    found = {event for tree in sources().values() for event in warnings(tree)}
    known = ENDS.keys() | MOMENTS | UNCHANGING.keys()
    assert found - known == set(), "add its end to ENDS, or say why it has none"
    assert known - found <= {"bug"}, "`say_bug` passes that name on itself"


def test_each_end_is_an_event() -> None:
    logged = {event for tree in sources().values() for event in events(tree)}
    assert set(ENDS.values()) - logged == set()
