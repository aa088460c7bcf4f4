"""Bytes that arrive in any portions come out as whole frames, and none is longer than the limit."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.wire.unix_grpc.http2 import PREFACE, FrameCutter, FrameTooLong
from tests.hostile import frames

LIMIT = 100
FRAMES = st.lists(
    st.builds(
        frames.frame,
        st.integers(0, 255),
        st.integers(0, 255),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=LIMIT),
    )
)


def portions(data: st.DataObject, sent: bytes) -> list[bytes]:
    """`sent`, cut at random places; some portions are empty."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=20)))
    return [sent[a:b] for a, b in itertools.pairwise([0, *cuts, len(sent)])]


@given(st.data(), FRAMES)
def test_any_portions_give_the_same_frames(data: st.DataObject, sent: list[bytes]) -> None:
    cutter = FrameCutter(expects_preface=False, frame_size=LIMIT)
    pieces = [piece for portion in portions(data, b"".join(sent)) for piece in cutter.cut(portion)]
    assert pieces == sent


@given(st.data(), FRAMES)
def test_the_preface_comes_before_the_frames(data: st.DataObject, sent: list[bytes]) -> None:
    cutter = FrameCutter(expects_preface=True, frame_size=LIMIT)
    pieces = [
        piece
        for portion in portions(data, PREFACE + b"".join(sent))
        for piece in cutter.cut(portion)
    ]
    assert b"".join(pieces) == PREFACE + b"".join(sent)
    assert pieces[len(pieces) - len(sent) :] == sent


def test_what_arrived_of_the_preface_is_passed_on_at_once() -> None:
    cutter = FrameCutter(expects_preface=True, frame_size=LIMIT)
    assert list(cutter.cut(b"G")) == [b"G"]
    assert list(cutter.cut(b"ET / ")) == [b"ET / "]


def test_an_unfinished_frame_is_kept() -> None:
    cutter = FrameCutter(expects_preface=False, frame_size=LIMIT)
    ping = frames.ping()
    assert list(cutter.cut(ping[:-1])) == []
    assert list(cutter.cut(ping[-1:] + ping[:3])) == [ping]
    assert list(cutter.cut(ping[3:])) == [ping]


@pytest.mark.parametrize("length", [LIMIT + 1, 2**24 - 1])
def test_a_long_frame_is_refused_by_its_announcement(length: int) -> None:
    cutter = FrameCutter(expects_preface=False, frame_size=LIMIT)
    announcement = length.to_bytes(3) + bytes(6)
    cut = cutter.cut(frames.ping() + announcement)
    assert next(cut) == frames.ping(), "what came before it counts"
    with pytest.raises(FrameTooLong, match=str(length)):
        next(cut)


def test_a_frame_as_long_as_the_limit_passes() -> None:
    cutter = FrameCutter(expects_preface=False, frame_size=LIMIT)
    longest = frames.data(1, bytes(LIMIT))
    assert list(cutter.cut(longest)) == [longest]
