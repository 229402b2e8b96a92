"""Classic BPF on a socket (socket(7), SO_ATTACH_FILTER): which packets reach it."""

from __future__ import annotations

import ctypes
import socket
import struct

_SO_ATTACH_FILTER = 26
_LD_W_ABS, _JEQ, _RET = 0x20, 0x15, 0x06
_NETWORK_HEADER = 0xFFF00000
"""What an offset from the network header begins with (``SKF_NET_OFF``)."""
_DESTINATION6 = 24
_WHOLE = 0xFFFFFFFF

_Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, k (``struct sock_filter``)."""


def drop_everything(held: socket.socket) -> None:
    """Let nothing reach the socket: it holds its port and answers nobody."""
    _attach(held, [(_RET, 0, 0, 0)])


def drop_all_but_loopback6(held: socket.socket) -> None:
    """Let reach an IPv6 socket what is for ``::1`` alone, which comes from this host only."""
    program: list[_Instruction] = []
    for word in range(4):
        program.append((_LD_W_ABS, 0, 0, _NETWORK_HEADER + _DESTINATION6 + 4 * word))
        program.append((_JEQ, 0, 2 * (3 - word) + 1, 1 if word == 3 else 0))
    _attach(held, [*program, (_RET, 0, 0, _WHOLE), (_RET, 0, 0, 0)])


def _attach(held: socket.socket, program: list[_Instruction]) -> None:
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    described = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    held.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
