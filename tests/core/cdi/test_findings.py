"""A file that runtimes would refuse is refused with the broken rule."""

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.core.cdi.findings import CdiFile, findings_of, read_spec
from biren_plugin.core.cdi.spec import holds, spec_for
from biren_plugin.errors import CdiSpecInvalid
from tests.support.cards import GPU, card, devices, listed

SPEC: dict[str, Any] = {
    "cdiVersion": "0.6.0",
    "kind": "vendor.com/net.card",
    "annotations": {"vendor.com/why": "because"},
    "devices": [
        {
            "name": "0:a",
            "containerEdits": {
                "deviceNodes": [{"path": "/dev/x", "type": "c", "permissions": "rwm", "major": 1}],
                "mounts": [{"hostPath": "/a", "containerPath": "/b", "options": ["ro"]}],
            },
        },
        {"name": "b", "containerEdits": {"env": ["A=B"]}},
    ],
    "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/bin/true"}]},
}


def test_a_field_without_a_value_counts_as_missing() -> None:
    spec = copy.deepcopy(SPEC) | {"kind": "birentech.com/gpu"}
    spec["devices"][0]["containerEdits"]["deviceNodes"] = None
    assert not holds(read_spec(spec), card(0))


def test_a_valid_spec_of_another_vendor_is_accepted_unchanged() -> None:
    assert read_spec(copy.deepcopy(SPEC)) == SPEC


DEVICE = ("devices", 0)
EDITS = (*DEVICE, "containerEdits")
NODE = (*EDITS, "deviceNodes", 0)


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("cdiVersion",), "2.0.0", "cdiVersion '2.0.0'"),
        (("cdiVersion",), 0.5, "cdiVersion of the document: missing, or not text"),
        (("kind",), "birentech.com/1-2-gpu", "kind 'birentech.com/1-2-gpu'"),
        (("kind",), "gpu", "kind 'gpu'"),
        (("kind",), None, "kind of the document"),
        (("comment",), "mine", "unknown field 'comment'"),
        (("devices",), [], "no device"),
        (("devices",), {"name": "a"}, "devices of the document: not a list"),
        ((*DEVICE, "name"), "/dev/vfio/7", "device name '/dev/vfio/7'"),
        ((*DEVICE, "name"), "b", "device b is there twice"),
        ((*DEVICE, "paths"), [], "a device: unknown field 'paths'"),
        (EDITS, {}, "containerEdits of device 0:a are empty"),
        (EDITS, {"env": []}, "containerEdits of device 0:a are empty"),
        (EDITS, None, "device 0:a: no containerEdits"),
        ((*EDITS, "environment"), ["A=B"], "unknown field 'environment'"),
        ((*NODE, "path"), "", "path of device 0:a"),
        ((*NODE, "type"), "x", "type 'x'"),
        ((*NODE, "permissions"), "rwx", "permissions 'rwx'"),
        ((*NODE, "mode"), 1, "unknown field 'mode'"),
        ((*EDITS, "deviceNodes"), {"path": "/dev/x"}, "deviceNodes of device 0:a: not a list"),
        ((*EDITS, "mounts", 0, "hostPath"), None, "hostPath of device 0:a"),
        ((*EDITS, "mounts", 0), "/a:/b", "a mount of device 0:a: no mapping"),
        (("containerEdits",), {}, "containerEdits of the document are empty"),
    ],
)
def test_the_error_names_the_broken_rule(where: tuple[Any, ...], value: Any, said: str) -> None:
    spec = copy.deepcopy(SPEC)
    target: Any = spec
    for step in where[:-1]:
        target = target[step]
    target[where[-1]] = value
    with pytest.raises(CdiSpecInvalid, match=said):
        read_spec(spec)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["cdiVersion", "kind", "devices", "name", "containerEdits", "deviceNodes", "mounts"]
            ),
            inner,
            max_size=4,
        )
    ),
)


@given(anything, st.sampled_from([None, "devices", "containerEdits"]))
def test_any_file_content_is_invalid_or_usable(document: Any, field: str | None) -> None:
    found = document if field is None else {**SPEC, field: document}
    with contextlib.suppress(CdiSpecInvalid):
        spec = read_spec(found)
        assert spec == found
        holds(spec, card(0))
        findings_of(CdiFile("biren.yaml", spec), spec_for([listed(GPU, *devices(GPU, 0))]))


def test_a_card_that_another_file_has_too_is_a_duplicate_whatever_lies_between() -> None:
    needed = spec_for([listed(GPU, *devices(GPU, 0, 1))])
    twice = spec_for([listed(GPU, *devices(GPU, 1))])
    assert needed is not None
    others = [
        CdiFile("unread.yaml"),
        CdiFile("foreign.yaml", read_spec(SPEC)),
        CdiFile("copy.yaml", twice),
    ]
    [found] = findings_of(CdiFile("biren.yaml", needed), needed, others)
    assert found.text == "copy.yaml: duplicate of card_1 in biren.yaml; remove one"


def test_a_file_of_another_kind_holds_none_of_the_cards() -> None:
    needed = spec_for([listed(GPU, *devices(GPU, 0, 1))])
    [found] = findings_of(CdiFile("biren.yaml", read_spec(SPEC)), needed)
    assert found.text.startswith("biren.yaml: wrong kind vendor.com/net.card, pods ask for ")
