"""The ``hello`` image: one program of a few hundred bytes, written here byte by byte.

An ELF64 executable (System V ABI, "Object Files") with a single segment that holds the headers, a dozen
instructions and the text. It writes the text to standard output and exits with 0.
"""

from __future__ import annotations

import struct

from wherry.errors import NotImplemented_

TEXT = b"""\

Hello from wherry.

This text was written by a program in a container, so these parts all work:
  1. the client asked the daemon for a container made from the image "hello",
  2. the daemon unpacked the image's only layer and mounted it,
  3. the runtime started the one program that is in it,
  4. and its output came back to your terminal.

Next, try a shell:
  wherry image bootstrap busybox
  wherry run -it busybox sh

"""

_BASE = 0x400000
_EHDR, _PHDR = 64, 56
_MACHINES = {"amd64": 62, "arm64": 183}


def program(architecture: str) -> bytes:
    """The executable. :raises NotImplemented_: no code for this architecture."""
    if architecture not in _MACHINES:
        raise NotImplemented_(f"cannot make the hello image: there is no program for {architecture} yet")
    code = _amd64() if architecture == "amd64" else _arm64()
    size = _EHDR + _PHDR + len(code) + len(TEXT)
    entry = _BASE + _EHDR + _PHDR
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)  # 64 bits, little endian, version 1, System V
    header = ident + struct.pack(
        "<HHIQQQIHHHHHH", 2, _MACHINES[architecture], 1, entry, _EHDR, 0, 0, _EHDR, _PHDR, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)  # PT_LOAD, read + execute
    return header + segment + code + TEXT


def _amd64() -> bytes:
    before = b"\xb8\x01\x00\x00\x00" + b"\xbf\x01\x00\x00\x00"  # mov eax, write; mov edi, stdout
    after = (
        b"\xba"
        + struct.pack("<I", len(TEXT))  # mov edx, length
        + b"\x0f\x05"  # syscall
        + b"\xb8\x3c\x00\x00\x00\x31\xff\x0f\x05"  # mov eax, exit; xor edi, edi; syscall
    )
    return before + b"\x48\x8d\x35" + struct.pack("<i", len(after)) + after  # lea rsi, [rip + after]


def _arm64() -> bytes:
    instructions = 8
    return struct.pack(
        f"<{instructions}I",
        _movz(0, 1),  # mov x0, stdout
        _adr(1, (instructions - 1) * 4),  # adr x1, text
        _movz(2, len(TEXT)),  # mov x2, length
        _movz(8, 64),  # mov x8, write
        0xD4000001,  # svc 0
        _movz(0, 0),
        _movz(8, 93),  # mov x8, exit
        0xD4000001,
    )


def _movz(register: int, value: int) -> int:
    return 0xD2800000 | value << 5 | register


def _adr(register: int, offset: int) -> int:
    return 0x10000000 | (offset & 3) << 29 | (offset >> 2) << 5 | register
