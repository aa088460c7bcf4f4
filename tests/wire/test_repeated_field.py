"""The elements of a repeated field are those that protobuf itself decodes."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.wire._proto import podresources_pb2 as pb
from biren_plugin.wire.repeated_field import encoded_elements

FIELD = pb.ListPodResourcesResponse.POD_RESOURCES_FIELD_NUMBER
NAMES = st.text(max_size=300)
UNKNOWN_FIELDS = st.sampled_from(
    (
        b"",
        b"\x10\x80\x80\x01",  # field 2, an integer
        b"\x19" + b"8" * 8,  # field 3, eight bytes
        b"\x22\x03abc",  # field 4, a text
        b"\x2d" + b"4" * 4,  # field 5, four bytes
        b"\x08\x01",  # field 1, but an integer
    )
)


@given(st.lists(st.tuples(NAMES, UNKNOWN_FIELDS), max_size=6))
def test_each_element_is_found_between_whatever_fields(
    parts: list[tuple[str, bytes]],
) -> None:
    message = b""
    for name, unknown in parts:
        one = pb.ListPodResourcesResponse()
        one.pod_resources.add(name=name)
        message += unknown + one.SerializeToString()
    decoded = pb.ListPodResourcesResponse.FromString(message).pod_resources
    found = [
        pb.PodResources.FromString(bytes(element))
        for element in encoded_elements(memoryview(message), FIELD)
    ]
    assert found == list(decoded)


@pytest.mark.parametrize(
    "message",
    [
        b"\x0a",  # no length
        b"\x0a\x05abc",  # shorter than its length
        b"\x0b",  # a group
        b"\xff" * 11,  # an integer without an end
        b"\x19123",  # fewer than eight bytes
    ],
)
def test_bytes_that_are_not_a_message_are_an_error(message: bytes) -> None:
    with pytest.raises(DecodeError):
        list(encoded_elements(memoryview(message), FIELD))
