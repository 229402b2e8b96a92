"""GELF 1.1 over UDP (chunked, compressed) and TCP (ended by NUL).

Source: the Graylog Extended Log Format's page, "GELF via UDP" and "GELF via TCP".
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from wherry.errors import InvalidArgument
from wherry.logs import values
from wherry.logs.drivers.base import LogTarget, Retry, Stateless, split_time
from wherry.logs.drivers.transport import Datagrams, LogAddress, LogConnection, Transport, parse_address
from wherry.logs.messages import LogMessage

_CHUNK = 1420 - 12
"""Bytes in a chunk after its header: then a datagram fits into an Ethernet frame."""
_CHUNKS_MAX = 128
_MAGIC = b"\x1e\x0f"
_ERROR, _INFO = 3, 6
_WINDOWS = {"gzip": 31, "zlib": 15}


@dataclass(frozen=True)
class GelfSettings:
    address: LogAddress
    compression: str = "gzip"
    level: int = 1
    retry: Retry = field(default_factory=Retry)

    @classmethod
    def of(cls, options: Mapping[str, str]) -> GelfSettings:
        """:raises InvalidArgument: an invalid value."""
        text = options.get("gelf-address", "")
        if not text:
            raise InvalidArgument("gelf-address is a required parameter")
        address = parse_address(text, "gelf-address", ("udp", "tcp"), 12201)
        on_udp, on_tcp = (
            ("compression-type", "compression-level"),
            ("tcp-max-reconnect", "tcp-reconnect-delay"),
        )
        for name in on_udp if address.scheme == "tcp" else on_tcp:
            if f"gelf-{name}" in options:
                only = "UDP" if address.scheme == "tcp" else "TCP"
                raise InvalidArgument(f"gelf-{name} is only supported on {only}")
        limit = values.integer(options, "gelf-tcp-max-reconnect", -1, low=0, high=1 << 30)
        delay = values.integer(options, "gelf-tcp-reconnect-delay", 0, low=0, high=3600)
        return cls(
            address,
            values.choice(options, "gelf-compression-type", ("gzip", "zlib", "none"), "gzip"),
            values.integer(options, "gelf-compression-level", 1, low=-1, high=9),
            Retry(delay or 0.1, max(delay, 10.0), None if limit < 0 else limit),
        )


class GelfSink(Stateless):
    def __init__(self, settings: GelfSettings, target: LogTarget) -> None:
        self._settings = settings
        self._fixed = fixed_fields(target)
        self._udp = settings.address.scheme == "udp"
        self._transport: Transport = (
            Datagrams(settings.address) if self._udp else LogConnection(settings.address)
        )

    async def deliver(self, messages: Sequence[LogMessage]) -> None:
        pieces: list[bytes] = []
        for message in messages:
            if not message.line:
                continue  # short_message must not be empty.
            document = encode(message, self._fixed)
            if self._udp:
                pieces += chunks(self._compress(document))
            else:
                pieces.append(document + b"\0")
        if pieces:
            await self._transport.send(pieces)

    def _compress(self, document: bytes) -> bytes:
        window = _WINDOWS.get(self._settings.compression)
        if window is None:
            return document
        packer = zlib.compressobj(self._settings.level, zlib.DEFLATED, window)
        return packer.compress(document) + packer.flush()

    async def close(self) -> None:
        await self._transport.close()


def fixed_fields(target: LogTarget) -> dict[str, Any]:
    """The fields that are the same in every message."""
    facts = target.facts
    return {
        # First, because labels come from the image: they must not override our own fields. "_id" is not
        # allowed (GELF Payload Specification).
        **{f"_{k}": v for k, v in target.attributes.items() if k != "id"},
        "version": "1.1",
        "host": target.hostname or "-",
        "_container_id": facts.id,
        "_container_name": facts.name,
        "_image_id": facts.image_id,
        "_image_name": facts.image_name,
        "_command": facts.command,
        "_tag": target.tag,
        "_created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(facts.created // 10**9)),
    }


def encode(message: LogMessage, fixed: Mapping[str, Any]) -> bytes:
    seconds, nanoseconds = split_time(message.stamp)
    return msgspec.json.encode(
        {
            **fixed,
            "short_message": message.line.decode(errors="replace"),
            # Milliseconds, which is what a float says without noise.
            "timestamp": round(seconds + nanoseconds / 1e9, 3),
            "level": _ERROR if message.stderr else _INFO,
        }
    )


def chunks(document: bytes) -> list[bytes]:
    """A datagram, or chunks if it is too large for a frame. A message that needs more than 128 chunks cannot
    be sent. That happens only with huge attributes, because a line has at most 16 KiB."""
    if len(document) <= _CHUNK + 12:
        return [document]
    count = -(-len(document) // _CHUNK)
    if count > _CHUNKS_MAX:
        return []
    head = _MAGIC + os.urandom(8)
    return [
        head + bytes((number, count)) + document[number * _CHUNK : (number + 1) * _CHUNK]
        for number in range(count)
    ]
