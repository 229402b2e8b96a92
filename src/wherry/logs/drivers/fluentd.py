"""fluentd: the Forward protocol, version 1 (Forward mode), in MessagePack.

Source: the fluentd wiki, "Forward Protocol Specification v1".
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from wherry.errors import InvalidArgument, NotImplemented_
from wherry.logs import values
from wherry.logs.drivers.base import LogTarget, Retry, Stateless, split_time
from wherry.logs.drivers.transport import LogAddress, LogConnection, parse_address
from wherry.logs.messages import LogMessage

_EVENT_TIME = 0
_ACK_TIMEOUT = 30.0
_FOR_EVER = (1 << 32) - 1


@dataclass(frozen=True)
class FluentdSettings:
    """``reconnect`` and ``ack_timeout`` in seconds; 0 for never."""

    address: LogAddress
    sub_second: bool = False
    ack: bool = False
    ack_timeout: float = _ACK_TIMEOUT
    reconnect: float = 0.0
    retry: Retry = field(default_factory=Retry)

    @classmethod
    def of(cls, options: Mapping[str, str]) -> FluentdSettings:
        """:raises InvalidArgument: an invalid value."""
        text = options.get("fluentd-address", "") or "127.0.0.1:24224"
        if "://" not in text:
            text = f"tcp://{text}"
        if not values.boolean(options, "fluentd-async", default=True):
            raise NotImplemented_(
                "fluentd-async=false is not implemented: containers never wait for a log server"
            )
        limit = values.integer(options, "fluentd-max-retries", _FOR_EVER, low=0, high=_FOR_EVER)
        wait = values.duration(options, "fluentd-retry-wait", 0.1)
        reconnect = values.duration(options, "fluentd-async-reconnect-interval", 0.0)
        if reconnect and not 0.1 <= reconnect <= 10:
            raise InvalidArgument("invalid fluentd-async-reconnect-interval: it must be from 100ms to 10s")
        values.size(options, "fluentd-buffer-limit", 1)
        return cls(
            parse_address(text, "fluentd-address", ("tcp", "tls", "unix"), 24224),
            values.boolean(options, "fluentd-sub-second-precision", default=False),
            values.boolean(options, "fluentd-request-ack", default=False),
            values.duration(options, "fluentd-write-timeout", _ACK_TIMEOUT) or _ACK_TIMEOUT,
            reconnect,
            Retry(wait or 0.1, max(wait, 10.0), None if limit == _FOR_EVER else limit),
        )


class FluentdSink(Stateless):
    def __init__(self, settings: FluentdSettings, target: LogTarget) -> None:
        self._settings = settings
        self._target = target
        secure = settings.address.scheme == "tls"
        self._stream = LogConnection(settings.address, ssl.create_default_context if secure else None)
        self._connected_at = 0.0

    async def deliver(self, messages: Sequence[LogMessage]) -> None:
        settings = self._settings
        now = time.monotonic()
        if settings.reconnect and now - self._connected_at > settings.reconnect:
            await self._stream.close()
        if not self._stream.connected:
            self._connected_at = now
        chunk = base64.b64encode(os.urandom(16)).decode() if settings.ack else ""
        reader = await self._stream.exchange(encode(messages, self._target, settings, chunk))
        if chunk:
            await self._acknowledged(reader, chunk)

    async def _acknowledged(self, reader: asyncio.StreamReader, chunk: str) -> None:
        expected = msgspec.msgpack.encode({"ack": chunk})
        try:
            async with asyncio.timeout(self._settings.ack_timeout):
                answer = await reader.readexactly(len(expected))
            if answer != expected:
                raise ConnectionError(f"fluentd acknowledged something else: {answer[:80]!r}")
        except EOFError as e:
            await self._stream.close()
            raise ConnectionResetError("fluentd left without acknowledging") from e
        except BaseException:
            await self._stream.close()
            raise

    async def close(self) -> None:
        await self._stream.close()


def encode(
    messages: Sequence[LogMessage], target: LogTarget, settings: FluentdSettings, chunk: str = ""
) -> bytes:
    """``[tag, [[time, record], …], option]``."""
    fixed: dict[str, Any] = {
        # Attributes first: labels come from the image, and must not override our own fields.
        **target.attributes,
        "container_id": target.facts.id,
        "container_name": f"/{target.facts.name}",
    }
    entries = []
    for message in messages:
        seconds, nanoseconds = split_time(message.stamp)
        moment: Any = seconds
        if settings.sub_second:
            data = seconds.to_bytes(4, "big") + nanoseconds.to_bytes(4, "big")
            moment = msgspec.msgpack.Ext(_EVENT_TIME, data)
        record = {
            **fixed,
            "source": "stderr" if message.stderr else "stdout",
            "log": message.line.decode(errors="replace"),
        }
        if message.part is not None:
            record |= {
                "partial_message": "true",
                "partial_id": message.part.id,
                "partial_ordinal": str(message.part.ordinal),
                "partial_last": "true" if message.part.last else "false",
            }
        entries.append((moment, record))
    option: dict[str, Any] = {"size": len(entries)}
    if chunk:
        option["chunk"] = chunk
    return msgspec.msgpack.encode((target.tag, entries, option))
