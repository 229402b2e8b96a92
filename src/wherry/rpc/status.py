"""How a call ends: a code, a text, and details; on the wire and as an exception.

    grpc-status: 5
    grpc-message: percent-encoded UTF-8
    grpc-status-details-bin: base64 of google.rpc.Status, if there are details

(gRPC over HTTP/2, "Responses"; google/rpc/status.proto for the details.)
"""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from google.protobuf.message import DecodeError

from wherry import errors
from wherry.errors import WherryError
from wherry.rpc.proto import status_pb2


class Code(IntEnum):
    """gRPC's status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Detail:
    """One ``google.protobuf.Any``: ``type_url`` is the type of ``value``."""

    type_url: str
    value: bytes


class RpcError(WherryError):
    """A call that ended with a code other than OK, on either side.

    If a handler raises it, it is sent to the client. A caller receives it if the server answered with an
    error or the connection failed.
    """

    def __init__(self, code: Code, message: str, details: Iterable[Detail] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.details: tuple[Detail, ...] = tuple(details)

    def __repr__(self) -> str:
        return f"RpcError({self.code.name}, {self.message!r})"


# The code of each type of error, subclasses first.
_CODES: tuple[tuple[type[BaseException], Code], ...] = (
    (errors.InvalidArgument, Code.INVALID_ARGUMENT),
    (errors.Unauthorized, Code.UNAUTHENTICATED),
    (errors.Forbidden, Code.PERMISSION_DENIED),
    (errors.NotFound, Code.NOT_FOUND),
    (errors.Conflict, Code.FAILED_PRECONDITION),
    (errors.NotModified, Code.FAILED_PRECONDITION),
    (errors.NotImplemented_, Code.UNIMPLEMENTED),
    (errors.Unavailable, Code.UNAVAILABLE),
    (errors.Internal, Code.INTERNAL),
    (WherryError, Code.UNKNOWN),
)


def told(error: WherryError) -> RpcError:
    """The error to send to a client."""
    if isinstance(error, RpcError):
        return error
    code = next(code for kind, code in _CODES if isinstance(error, kind))
    return RpcError(code, error.message).as_expected(error.expected)


# The codes for HTTP answers without gRPC's trailers (gRPC, "HTTP to gRPC Status Code Mapping").
_OF_HTTP = {
    400: Code.INTERNAL,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    429: Code.UNAVAILABLE,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.UNAVAILABLE,
}

# The meaning of RST_STREAM's codes (gRPC over HTTP/2, "Errors").
_OF_RESET = {
    7: (Code.UNAVAILABLE, "the other side refused the call"),
    8: (Code.CANCELLED, "the other side cancelled the call"),
    11: (Code.RESOURCE_EXHAUSTED, "the other side asks for calm"),
    12: (Code.PERMISSION_DENIED, "the other side finds the connection not secure enough"),
}


def of_http(status: int) -> RpcError:
    return RpcError(_OF_HTTP.get(status, Code.UNKNOWN), f"the server answered HTTP {status}")


def of_reset(code: int) -> RpcError:
    kind, text = _OF_RESET.get(
        code, (Code.INTERNAL, f"the other side broke the call off (HTTP/2 error {code})")
    )
    return RpcError(kind, text)


def encode(error: RpcError | None, room: int) -> list[tuple[bytes, bytes]]:
    """The trailers of a status; ``None`` is OK.

    :param room: the maximum size of the peer's header list; parts that do not fit are left out, details
        first.
    """
    if error is None:
        return [(b"grpc-status", b"0")]
    trailers = [(b"grpc-status", b"%d" % error.code)]
    room -= 64
    if message := _escaped(error.message):
        if len(message) + 44 > room:
            message = _escaped(error.message[: max(0, room - 44) // 12])
        trailers.append((b"grpc-message", message))
        room -= len(message) + 44
    if error.details:
        whole = status_pb2.Status(code=error.code, message=error.message)
        for detail in error.details:
            whole.details.add(type_url=detail.type_url, value=detail.value)
        packed = base64.b64encode(whole.SerializeToString()).rstrip(b"=")
        if len(packed) + 55 <= room:
            trailers.append((b"grpc-status-details-bin", packed))
    return trailers


def decode(trailers: Sequence[tuple[bytes, bytes]]) -> RpcError | None:
    """The status in trailers; ``None`` for OK.

    A malformed status becomes an error with the code ``INTERNAL`` or ``UNKNOWN``; nothing is raised.
    """
    found = dict(trailers)
    number = found.get(b"grpc-status")
    if number is None:
        return RpcError(Code.INTERNAL, "the server ended the call without a status")
    try:
        code = Code(int(number)) if len(number) <= 2 else Code.UNKNOWN
    except ValueError:
        code = Code.UNKNOWN
    if code is Code.OK:
        return None
    message = urllib.parse.unquote_to_bytes(found.get(b"grpc-message", b"")).decode("utf-8", "replace")
    return RpcError(code, message or code.name, _details(found.get(b"grpc-status-details-bin", b"")))


def _details(packed: bytes) -> tuple[Detail, ...]:
    try:
        whole = status_pb2.Status.FromString(base64.b64decode(packed + b"=" * (-len(packed) % 4)))
    except (binascii.Error, DecodeError):
        return ()
    return tuple(Detail(any_.type_url, any_.value) for any_ in whole.details)


_UNSAFE = re.compile(rb"[^\x20-\x24\x26-\x7e]")


def _escaped(text: str) -> bytes:
    raw = text.encode("utf-8", "replace")
    return _UNSAFE.sub(lambda found: b"%%%02X" % found.group()[0], raw)
