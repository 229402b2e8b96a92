"""A call's metadata and deadline in HTTP/2 headers.

Names are lower case; a value is text of printable ASCII, or bytes if the name ends in ``-bin``; those are
sent as base64 (gRPC over HTTP/2, "Custom-Metadata").
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping

from wherry.errors import InvalidArgument

Headers = list[tuple[bytes, bytes]]
Value = str | bytes

_NAME = re.compile(r"[0-9a-z_.-]+\Z")
_TEXT = re.compile(r"[\x20-\x7e]*\Z")
_OURS = {"te", "content-type", "content-length", "host", "connection", "user-agent", "trailer", "upgrade"}

_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])\Z")


class Metadata:
    """Names with one or several values each, in order. Immutable."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Mapping[str, Value] | Iterable[tuple[str, Value]] = ()) -> None:
        """:raises InvalidArgument: a name or value that cannot be sent, or a name reserved for gRPC."""
        items = pairs.items() if isinstance(pairs, Mapping) else pairs
        self._pairs: tuple[tuple[str, Value], ...] = tuple(
            _checked(name.lower(), value) for name, value in items
        )

    @classmethod
    def received(cls, headers: Iterable[tuple[bytes, bytes]]) -> Metadata:
        """The metadata that a peer sent, without the headers of gRPC and HTTP.

        :raises InvalidArgument: a ``-bin`` value that is not base64.
        """
        found = cls()
        found._pairs = tuple(pair for raw, value in headers for pair in _decoded(raw, value))
        return found

    def get(self, name: str, default: str = "") -> str:
        """The first value of a text name."""
        return next((v for n, v in self._pairs if n == name and isinstance(v, str)), default)

    def get_bytes(self, name: str, default: bytes = b"") -> bytes:
        """The first value of a ``-bin`` name."""
        return next((v for n, v in self._pairs if n == name and isinstance(v, bytes)), default)

    def all(self, name: str) -> list[str]:
        """All values of a text name, in order."""
        return [v for n, v in self._pairs if n == name and isinstance(v, str)]

    def encoded(self) -> Headers:
        return [
            (
                name.encode(),
                base64.b64encode(value).rstrip(b"=") if isinstance(value, bytes) else value.encode(),
            )
            for name, value in self._pairs
        ]

    def __iter__(self) -> Iterator[tuple[str, Value]]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Metadata) and self._pairs == other._pairs

    def __hash__(self) -> int:
        return hash(self._pairs)

    def __repr__(self) -> str:
        return f"Metadata({list(self._pairs)!r})"


def _checked(name: str, value: Value) -> tuple[str, Value]:
    if not _NAME.match(name) or name in _OURS or name.startswith("grpc-"):
        raise InvalidArgument(f"cannot send metadata: invalid name {name[:80]!r}")
    if name.endswith("-bin"):
        if not isinstance(value, bytes):
            raise InvalidArgument(f"cannot send metadata: {name} needs bytes")
    elif not isinstance(value, str) or not _TEXT.match(value) or value != value.strip(" "):
        raise InvalidArgument(f"cannot send metadata: the value of {name} is not plain text")
    return name, value


def _decoded(raw: bytes, value: bytes) -> Iterator[tuple[str, Value]]:
    name = raw.decode("latin-1")
    if name.startswith((":", "grpc-")) or name in _OURS:
        return
    if not name.endswith("-bin"):
        yield name, value.decode("utf-8", "replace")
        return
    for part in value.split(b","):
        packed = part.strip().rstrip(b"=")
        try:
            yield name, base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
        except binascii.Error as e:
            raise InvalidArgument(f"cannot read metadata: {name[:80]} is not base64") from e


def encode_timeout(seconds: float) -> bytes:
    """``grpc-timeout`` for a duration: at most eight digits, rounded up, never zero."""
    nanoseconds = max(1, int(seconds * 1e9))
    for size, unit in ((1, b"n"), (10**3, b"u"), (10**6, b"m"), (10**9, b"S"), (60 * 10**9, b"M")):
        if (number := -(-nanoseconds // size)) < 10**8:
            return b"%d%s" % (number, unit)
    return b"%dH" % min(10**8 - 1, -(-nanoseconds // (3600 * 10**9)))


def decode_timeout(value: bytes) -> float:
    """Seconds. :raises InvalidArgument: not a ``grpc-timeout``."""
    found = _TIMEOUT.match(value)
    if found is None:
        raise InvalidArgument(f"cannot read grpc-timeout: {value[:20]!r}")
    return int(found[1]) * _UNITS[found[2]]
