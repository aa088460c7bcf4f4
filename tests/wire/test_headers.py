"""Any header list is either read as gRPC defines it or refused; reading raises nothing."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from purerpc import Status, StatusCode

from biren_plugin.wire.unix_grpc.headers import (
    Header,
    Refusal,
    RequestHeaders,
    read_request,
    read_status,
    read_timeout,
    write_refusal,
    write_request,
    write_trailers,
)


def request(**changed: bytes | None) -> list[Header]:
    """A good request's headers; a keyword replaces (`content_type=b"..."`), adds, or takes away."""
    fields: dict[bytes, bytes | None] = dict(write_request("v1beta1.DevicePlugin", "Allocate"))
    for name, value in changed.items():
        plain = name.replace("_", "-").encode()
        fields[b":" + plain if b":" + plain in fields else plain] = value
    return [(name, value) for name, value in fields.items() if value is not None]


def test_written_headers_read_back_the_same() -> None:
    assert read_request(request()) == RequestHeaders("v1beta1.DevicePlugin", "Allocate", None)


def test_a_timeout_is_seconds() -> None:
    read = read_request(request(grpc_timeout=b"250m"))
    assert read == RequestHeaders("v1beta1.DevicePlugin", "Allocate", 0.25)


@pytest.mark.parametrize(
    ("changes", "code", "http_status"),
    [
        ({"method": b"GET"}, StatusCode.INTERNAL, b"405"),
        ({"method": None}, StatusCode.INTERNAL, b"405"),
        ({"content_type": None}, StatusCode.INTERNAL, b"415"),
        ({"content_type": b"application/json"}, StatusCode.INTERNAL, b"415"),
        ({"content_type": b"application/grpc+json"}, StatusCode.INTERNAL, b"415"),
        ({"content_type": b"\xff"}, StatusCode.INTERNAL, b"415"),
        ({"grpc_encoding": b"gzip"}, StatusCode.UNIMPLEMENTED, b"200"),
        ({"path": None}, StatusCode.UNIMPLEMENTED, b"200"),
        ({"path": b"/only"}, StatusCode.UNIMPLEMENTED, b"200"),
        ({"path": b"//method"}, StatusCode.UNIMPLEMENTED, b"200"),
        ({"path": b"/service/"}, StatusCode.UNIMPLEMENTED, b"200"),
        ({"grpc_timeout": b""}, StatusCode.INTERNAL, b"200"),
        ({"grpc_timeout": b"5"}, StatusCode.INTERNAL, b"200"),
        ({"grpc_timeout": b"-5S"}, StatusCode.INTERNAL, b"200"),
    ],
)
def test_a_request_that_is_not_grpc_is_refused(
    changes: dict[str, bytes | None], code: StatusCode, http_status: bytes
) -> None:
    refusal = read_request(request(**changes))
    assert isinstance(refusal, Refusal)
    assert (refusal.status.status_code, refusal.http_status) == (code, http_status)
    assert refusal.status.status_message


@pytest.mark.parametrize(
    "given",
    [b"application/grpc", b"application/grpc+proto", b"Application/gRPC", b"application/grpc; a=b"],
)
def test_content_types_of_grpc_are_read(given: bytes) -> None:
    assert isinstance(read_request(request(content_type=given)), RequestHeaders)


def test_names_in_odd_case_and_repeated_ones_are_read() -> None:
    odd = [(name.title(), value) for name, value in request(grpc_timeout=b"1S")]
    repeated = [(b"x-key", b"1"), (b"X-Key", b"2"), (b"key-bin", b"\x00\xff")]
    assert read_request([*odd, *repeated]) == read_request(request(grpc_timeout=b"1S"))


@given(
    st.lists(st.tuples(st.binary(), st.binary())),
    st.dictionaries(
        st.sampled_from(["path", "method", "content_type", "grpc_timeout", "grpc_encoding"]),
        st.one_of(st.none(), st.binary()),
    ),
)
def test_reading_never_raises(extra: list[Header], changes: dict[str, bytes | None]) -> None:
    read = read_request([*request(**changes), *extra])
    if isinstance(read, Refusal):
        write_refusal(read)


@given(st.integers(0, 99_999_999), st.sampled_from("HMSmun"))
def test_any_timeout_of_the_grammar_is_read(number: int, unit: str) -> None:
    seconds = {"H": 3600, "M": 60, "S": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9}[unit]
    assert read_timeout(f"{number}{unit}") == pytest.approx(number * seconds)


@pytest.mark.parametrize(
    "text", ["", "S", "5", "5s", "5 S", "+5S", "1.5S", "123456789S", "\u00b2S", "\u0665S", "5SS"]
)
def test_no_other_timeout_is_read(text: str) -> None:
    assert read_timeout(text) is None


@given(st.sampled_from([*StatusCode]), st.text())
def test_a_status_survives_the_wire(code: StatusCode, text: str) -> None:
    trailers = write_trailers(Status(code, text))
    read = read_status(trailers)
    assert (read.status_code, read.status_message) == (code, text)
    written = dict(trailers).get(b"grpc-message", b"").decode("ascii")
    assert set(written) <= set(string.printable) - set("\t\n\r\v\f")


def test_a_status_text_that_is_not_unicode_is_written_anyway() -> None:
    assert read_status(write_trailers(Status(StatusCode.INTERNAL, "caf\udce9"))).status_message


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b":status", b"200"), (b"content-type", b"application/grpc")],
        [(b":status", b"503"), (b"content-type", b"text/html")],
        [(b"grpc-status", b"")],
        [(b"grpc-status", b"-1")],
        [(b"grpc-status", b"OK")],
        [(b"grpc-status", "²".encode())],
        [(b"grpc-status", b"99")],
        [(b"grpc-status", b"9" * 5000)],
    ],
)
def test_an_answer_without_a_status_that_exists_is_unknown(headers: list[Header]) -> None:
    assert read_status(headers).status_code is StatusCode.UNKNOWN


@given(
    st.lists(
        st.tuples(
            st.one_of(st.binary(), st.sampled_from([b"grpc-status", b"grpc-message", b":status"])),
            st.one_of(st.binary(), st.sampled_from([b"0", b"13", b"%", b"%zz", b"%ff"])),
        )
    )
)
def test_reading_a_status_never_raises(headers: list[Header]) -> None:
    assert isinstance(read_status(headers).status_message, str)
