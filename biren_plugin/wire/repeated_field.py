"""Takes a long message apart without decoding it whole: the encoded elements of one repeated field.

Protocol buffers decode a message at once, into several times its size. The encoding is the one of
https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Iterator
from typing import Final

from google.protobuf.message import DecodeError

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
"""Wire types. Groups, 3 and 4, do not occur in proto3."""
_FIXED: Final = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}
_VARINT_SIZE: Final = 10
"""Bytes of the longest integer."""


def encoded_elements(message: memoryview, field: int) -> Iterator[memoryview]:
    """Yield each element of the repeated `field`, which has messages, in their order; nothing is copied.

    Raises google.protobuf's `DecodeError` at the first byte that no message can have.
    """
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        wire_type = tag & 7
        if wire_type == _VARINT:
            _, at = _read_varint(message, at)
            continue
        if wire_type == _LENGTH:
            size, at = _read_varint(message, at)
        elif (size := _FIXED.get(wire_type, -1)) < 0:
            raise DecodeError(f"wire type {wire_type} at byte {at}")
        if at + size > len(message):
            raise DecodeError(f"a field of {size} bytes at byte {at} of {len(message)}")
        if wire_type == _LENGTH and tag >> 3 == field:
            yield message[at : at + size]
        at += size


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """The integer at this place, and the place behind it."""
    value = 0
    for number, byte in enumerate(message[at : at + _VARINT_SIZE]):
        value |= (byte & 0x7F) << (7 * number)
        if byte < 0x80:
            return value, at + number + 1
    raise DecodeError(f"an integer without an end at byte {at}")
