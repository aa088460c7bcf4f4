"""Header lists as gRPC over HTTP/2 defines them: reads and checks requests, writes responses.

Source: "gRPC over HTTP2", PROTOCOL-HTTP2.md of the gRPC project. Metadata that the five methods do
not use is accepted in any form and ignored, binary keys included.
"""

import urllib.parse
from collections.abc import Iterable
from typing import Final, NamedTuple

from hpack import NeverIndexedHeaderTuple
from purerpc import Status, StatusCode

Header = tuple[bytes, bytes]

CONTENT_TYPES: Final = frozenset({b"application/grpc", b"application/grpc+proto"})
_UNIT_SECONDS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT_DIGITS: Final = 8
_LONGEST_TEXT: Final = 4096
"""Bytes of a field that are read; grpc-message is the longest field in use."""
_STATUS_DIGITS: Final = 3
_PLAIN: Final = " ,;:'()[]{}<>/=+*!?@#&|"
"""Characters, besides letters and digits, that a grpc-message may hold unescaped."""

RESPONSE: Final[list[Header]] = [
    (b":status", b"200"),
    (b"content-type", b"application/grpc+proto"),
]


class RequestHeaders(NamedTuple):
    """The opening headers of a call."""

    service: str
    """Full name, `v1beta1.DevicePlugin`."""
    method: str
    timeout: float | None
    """Seconds that the caller waits; None: forever."""


class Refusal(NamedTuple):
    """The answer to a call that is not dispatched."""

    status: Status
    http_status: bytes = b"200"
    """Other than 200 if the request is not gRPC at all."""


def read_request(headers: Iterable[Header]) -> RequestHeaders | Refusal:
    """Check a request's header list. Never raises: bad text gives a `Refusal`."""
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        fields.setdefault(name.lower(), value)
    if fields.get(b":method") != b"POST":
        return Refusal(Status(StatusCode.INTERNAL, "gRPC requests are POST"), b"405")
    content_type = fields.get(b"content-type", b"").split(b";")[0].strip().lower()
    if content_type not in CONTENT_TYPES:
        text = f"content-type {_text(content_type)!r} is not application/grpc or application/grpc+proto"
        return Refusal(Status(StatusCode.INTERNAL, text), b"415")
    encoding = fields.get(b"grpc-encoding", b"identity").strip().lower()
    if encoding != b"identity":
        text = f"grpc-encoding {_text(encoding)!r} is not supported; send identity"
        return Refusal(Status(StatusCode.UNIMPLEMENTED, text))
    path = _text(fields.get(b":path", b""))
    service, slash, method = path.removeprefix("/").partition("/")
    if not (path.startswith("/") and service and slash and method):
        return Refusal(Status(StatusCode.UNIMPLEMENTED, f"path {path!r} is not /service/method"))
    timeout: float | None = None
    if (given := fields.get(b"grpc-timeout")) is not None:
        timeout = read_timeout(_text(given))
        if timeout is None:
            text = (
                f"grpc-timeout {_text(given)!r} is not 1 to 8 digits and a unit of H, M, S, m, u, n"
            )
            return Refusal(Status(StatusCode.INTERNAL, text))
    return RequestHeaders(service, method, timeout)


def read_timeout(text: str) -> float | None:
    """Seconds of a `grpc-timeout`, or None if it is none: `"250m"` -> 0.25."""
    digits, unit = text[:-1], text[-1:]
    if unit not in _UNIT_SECONDS or not (digits.isascii() and digits.isdigit()):
        return None
    if len(digits) > _TIMEOUT_DIGITS:
        return None
    return int(digits) * _UNIT_SECONDS[unit]


def write_trailers(status: Status) -> list[Header]:
    """Return the header list that ends a response."""
    trailers = [(b"grpc-status", str(status.int_value).encode())]
    if status.status_message:
        message = urllib.parse.quote(status.status_message, safe=_PLAIN, errors="replace")
        # Texts differ from call to call, so none is worth a place in the peer's table.
        trailers.append(NeverIndexedHeaderTuple(b"grpc-message", message.encode()))
    return trailers


def write_refusal(refusal: Refusal) -> list[Header]:
    """Return a response that consists of trailers only."""
    return [(b":status", refusal.http_status), RESPONSE[1], *write_trailers(refusal.status)]


def write_request(service: str, method: str) -> list[Header]:
    """Return the opening headers of a client's call; grpc-go names its Unix peers `localhost` too."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", f"/{service}/{method}".encode()),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc+proto"),
        (b"user-agent", b"br-gpu-device-plugin"),
    ]


def read_status(headers: Iterable[Header]) -> Status:
    """Return the status in a server's trailers, UNKNOWN if they have none."""
    fields = dict(headers)
    code = _text(fields.get(b"grpc-status", b""))
    if not (code.isascii() and code.isdigit() and len(code) <= _STATUS_DIGITS):
        http_status = _text(fields.get(b":status", b"?"))
        return Status(StatusCode.UNKNOWN, f"no grpc-status in the answer (HTTP {http_status})")
    return Status(int(code), urllib.parse.unquote(_text(fields.get(b"grpc-message", b""))))


def _text(raw: bytes) -> str:
    return raw[:_LONGEST_TEXT].decode("utf-8", errors="replace")
