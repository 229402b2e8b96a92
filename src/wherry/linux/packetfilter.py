"""Classic BPF on a socket (socket(7), SO_ATTACH_FILTER): which packets reach it."""

from __future__ import annotations

import ctypes
import socket
import struct

_SO_ATTACH_FILTER = 26
_RET = 0x06

_Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, k (``struct sock_filter``)."""


def drop_everything(held: socket.socket) -> None:
    """Let nothing reach the socket: it holds its port and answers nobody."""
    _attach(held, [(_RET, 0, 0, 0)])


def _attach(held: socket.socket, program: list[_Instruction]) -> None:
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    described = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    held.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
