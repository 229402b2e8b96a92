"""Classic BPF on a socket (socket(7), SO_ATTACH_FILTER): which packets reach it."""

from __future__ import annotations

import ctypes
import socket
import struct

_SO_ATTACH_FILTER = 26
_BPF_RET = 0x06


def drop_everything(held: socket.socket) -> None:
    """Let nothing reach the socket: it holds its port and answers nobody."""
    program = ctypes.create_string_buffer(struct.pack("=HBBI", _BPF_RET, 0, 0, 0), 8)
    held.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(program)))
