"""Limits on the memory and work that a peer can cause with one connection."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Sizes are bytes. A hostile peer can make one connection hold at most ``streams * FIRST_WINDOW + windows
    + assembling`` and the size of its headers."""

    message: int = 16 << 20
    """The size of one unpacked message; other programs in this field use the same limit."""

    streams: int = 1000
    """The number of open calls. Clients wait for more, so it must exceed what any client needs at once."""

    headers: int = 64 << 10
    """The size of one call's headers as HPACK counts it (RFC 9113 section 10.5.1); also the limit of the
    encoded block."""

    stream_window: int = 4 << 20
    """The largest window of one stream, if its reader keeps up."""

    windows: int = 32 << 20
    """The sum of all streams' windows beyond their first ones."""

    assembling: int = 64 << 20
    """The total size of incomplete messages."""

    unsent: int = 4 << 20
    """The buffer for a peer that does not read. Only answers to PING, SETTINGS and refused calls are put
    there; all other data waits in its streams."""

    idle_frames: int = 2000
    """The largest burst of frames without payload, and ..."""

    idle_rate: float = 500.0
    """... their long-term rate per second."""


FIRST_WINDOW = 65535
"""The first window of a stream. It is HTTP/2's default, so nothing changes when our SETTINGS arrive."""

FRAME_SIZE = 1 << 20
"""The largest DATA frame that we announce: frames are passed on in pieces, not kept."""


class ByteBudget:
    """A number of bytes that the streams of a connection share."""

    __slots__ = ("left",)

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> bool:
        if size > self.left:
            return False
        self.left -= size
        return True

    def give(self, size: int) -> None:
        self.left += size
