"""journald: the native protocol, one datagram an entry.

Source: systemd's page "Native Journal Protocol", and systemd.journal-fields(7).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from wherry.errors import Unavailable
from wherry.logs.drivers.base import LogTarget, Stateless
from wherry.logs.drivers.transport import Datagrams, LogAddress
from wherry.logs.messages import LogMessage

SOCKET = Path("/run/systemd/journal/socket")
_ERROR, _INFO = b"3", b"6"
_UNFIT = re.compile(r"[^A-Z0-9_]")


def check(path: Path = SOCKET) -> None:
    """:raises Unavailable: this host has no journal."""
    if not path.is_socket():
        raise Unavailable(f"cannot use log driver journald: there is no journal at {path}")


class JournalSink(Stateless):
    def __init__(self, target: LogTarget, path: Path = SOCKET) -> None:
        self._fixed = b"".join(field(k, v.encode()) for k, v in fixed_fields(target).items())
        self._transport = Datagrams(LogAddress("unixgram", path=str(path)))

    async def deliver(self, messages: Sequence[LogMessage]) -> None:
        await self._transport.send([entry(m, self._fixed) for m in messages if m.line])

    async def close(self) -> None:
        await self._transport.close()


def fixed_fields(target: LogTarget) -> Mapping[str, str]:
    facts = target.facts
    named = {
        "CONTAINER_ID": facts.id[:12],
        "CONTAINER_ID_FULL": facts.id,
        "CONTAINER_NAME": facts.name,
        "CONTAINER_TAG": target.tag,
        "IMAGE_NAME": facts.image_name,
        "SYSLOG_IDENTIFIER": target.tag,
    }
    return {**{_field_name(k): v for k, v in target.attributes.items()}, **named}


def _field_name(text: str) -> str:
    """Upper case letters, digits and underscores; not beginning with one, which is the journal's own."""
    return _UNFIT.sub("_", text.upper()).lstrip("_0123456789")[:64] or "X"


def field(name: str, value: bytes) -> bytes:
    if b"\n" not in value:
        return name.encode() + b"=" + value + b"\n"
    return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"


def entry(message: LogMessage, fixed: bytes) -> bytes:
    data = field("MESSAGE", message.line) + field("PRIORITY", _ERROR if message.stderr else _INFO) + fixed
    data += field("SYSLOG_TIMESTAMP", message.stamp)
    if message.part is not None:
        data += field("CONTAINER_PARTIAL_ID", message.part.id.encode())
        data += field("CONTAINER_PARTIAL_ORDINAL", b"%d" % message.part.ordinal)
        data += field("CONTAINER_PARTIAL_LAST", b"true" if message.part.last else b"false")
        if not message.part.last:
            data += field("CONTAINER_PARTIAL_MESSAGE", b"true")
    return data
