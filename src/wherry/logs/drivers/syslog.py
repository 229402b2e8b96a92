"""syslog: RFC 3164 and RFC 5424 messages over UDP, TCP, TLS and unix sockets.

On streams a message ends in a newline (RFC 6587, 3.4.2); RFC 5424 over TLS counts octets (RFC 5425, 4.3).
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wherry.errors import InvalidArgument, Unavailable
from wherry.logs import values
from wherry.logs.drivers.base import LogTarget, Stateless, split_time
from wherry.logs.drivers.transport import (
    Datagrams,
    LocalSocket,
    LogAddress,
    LogConnection,
    Transport,
    parse_address,
)
from wherry.logs.messages import LogMessage

LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")
FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
_ERROR, _INFO = 3, 6
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip


@dataclass(frozen=True)
class SyslogSettings:
    """``address`` is ``None`` for this host's own syslog."""

    address: LogAddress | None
    facility: int
    format: str
    ca: str = ""
    cert: str = ""
    key: str = ""
    skip_verify: bool = False

    @classmethod
    def of(cls, options: Mapping[str, str]) -> SyslogSettings:
        """:raises InvalidArgument: an invalid value."""
        text = options.get("syslog-address", "")
        schemes = ("udp", "tcp", "tcp+tls", "unix", "unixgram")
        address = None
        if text:
            port = 6514 if text.startswith("tcp+tls") else 514
            address = parse_address(text, "syslog-address", schemes, port)
        return cls(
            address=address,
            facility=_facility(options.get("syslog-facility", "")),
            format=values.choice(options, "syslog-format", FORMATS),
            ca=options.get("syslog-tls-ca-cert", ""),
            cert=options.get("syslog-tls-cert", ""),
            key=options.get("syslog-tls-key", ""),
            skip_verify=values.boolean(options, "syslog-tls-skip-verify", default=False),
        )

    def check(self) -> None:
        """:raises InvalidArgument: unusable certificates. :raises Unavailable: no syslog on this host."""
        if self.address is None and not any(Path(path).exists() for path in LOCAL):
            raise Unavailable(
                "cannot use log driver syslog: this host has no syslog socket: name a server with "
                "syslog-address"
            )
        if self.address is not None and self.address.scheme == "tcp+tls":
            try:
                self.context()
            except (OSError, ValueError) as e:
                raise InvalidArgument(f"cannot use the TLS options of log driver syslog: {e}") from e

    def context(self) -> ssl.SSLContext:
        """Reads the certificates. :raises OSError: they do not exist, or are not certificates."""
        context = ssl.create_default_context(cafile=self.ca or None)
        if self.skip_verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.cert:
            context.load_cert_chain(self.cert, self.key or None)
        return context


def _facility(text: str) -> int:
    if not text:
        return _FACILITIES.index("daemon")
    if text in _FACILITIES:
        return _FACILITIES.index(text)
    if text.isascii() and text.isdigit() and int(text) < len(_FACILITIES):
        return int(text)
    raise InvalidArgument(f"invalid syslog facility: {text!r}")


class SyslogSink(Stateless):
    def __init__(self, settings: SyslogSettings, target: LogTarget) -> None:
        self._format = formatter(settings, target)
        self._frame = _framer(settings)
        self._transport, self._framed = self._open(settings)

    def _open(self, settings: SyslogSettings) -> tuple[Transport, bool]:
        address = settings.address
        if address is None:
            return LocalSocket(LOCAL, _newline), False
        if address.scheme in ("udp", "unixgram"):
            return Datagrams(address), False
        if address.scheme == "unix":
            return LocalSocket([address.path], _newline), False
        return LogConnection(address, settings.context if address.scheme == "tcp+tls" else None), True

    async def deliver(self, messages: Sequence[LogMessage]) -> None:
        formatted = [self._format(m) for m in messages]
        await self._transport.send([self._frame(f) for f in formatted] if self._framed else formatted)

    async def close(self) -> None:
        await self._transport.close()


def _newline(message: bytes) -> bytes:
    # A newline inside a message would end it; only binary output has one.
    return message.replace(b"\n", b" ") + b"\n"


def _counted(message: bytes) -> bytes:
    return b"%d %s" % (len(message), message)


def _framer(settings: SyslogSettings) -> Callable[[bytes], bytes]:
    counts = (
        settings.address is not None
        and settings.address.scheme == "tcp+tls"
        and settings.format.startswith("rfc5424")
    )
    return _counted if counts else _newline


def formatter(settings: SyslogSettings, target: LogTarget) -> Callable[[LogMessage], bytes]:
    """A function that formats a message for sending, without framing.

    Without a format it is RFC 3164 without the host's name, which is what syslog(3) sends.
    """
    priorities = {False: settings.facility * 8 + _INFO, True: settings.facility * 8 + _ERROR}
    pid = os.getpid()
    tag = target.tag.encode() or b"-"
    hostname = (target.hostname or "-").encode()

    def rfc3164(message: LogMessage) -> bytes:
        seconds, _ = split_time(message.stamp)
        host = hostname + b" " if settings.format == "rfc3164" else b""
        head = b"<%d>%s %s%s[%d]: " % (priorities[message.stderr], _short_time(seconds), host, tag, pid)
        return head + message.line

    # APP-NAME is at most 48 and MSGID 32 printable characters without blanks (RFC 5424, 6).
    name, message_id = _printable(tag, 48), _printable(tag, 32)
    digits = 26 if settings.format == "rfc5424micro" else 19

    def rfc5424(message: LogMessage) -> bytes:
        moment = message.stamp[:digits] + b"Z"
        priority = priorities[message.stderr]
        head = b"<%d>1 %s %s %s %d %s - " % (
            priority,
            moment,
            _printable(hostname, 255),
            name,
            pid,
            message_id,
        )
        return head + message.line

    return rfc5424 if settings.format.startswith("rfc5424") else rfc3164


def _short_time(seconds: int) -> bytes:
    """``Jan  2 15:04:05``, local time (RFC 3164, 4.1.2)."""
    t = time.localtime(seconds)
    return f"{_MONTHS[t.tm_mon - 1]} {t.tm_mday:2d} {t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}".encode()


def _printable(text: bytes, most: int) -> bytes:
    return bytes(c if 33 <= c <= 126 else 0x5F for c in text)[:most] or b"-"
