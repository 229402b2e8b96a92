"""The confined child: turns one compressed stream into files, or into plain bytes, and nothing else.

Run as ``python -I -S -c … FD ROLE …``: descriptor 0 is the stream, 1 the plain output or /dev/null, FD a pipe
for the result. It imports everything it will need, confines itself (:mod:`wherry.linux.confine`), and only
then reads the first hostile byte.

Result, fields separated by NUL: ``ok``, diff id or ``-``, bytes on disk, inodes, entries, uncompressed size,
how many directories are opaque and those, then those that the layer has no entry of; or ``bad`` and a
clause; or ``link`` and a clause (needs its parents); or ``os``,
an errno and a clause.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from wherry.linux import confine
from wherry.linux import syscalls as calls
from wherry.linux.overlay import mount_overlay
from wherry.model.tarformat import BadTar, Buffered, TarLimits, TarReader
from wherry.storage.confined.child.apply import Applier, MissingLink
from wherry.storage.confined.child.decompress import Decompressed, Mapped, ReadAhead
from wherry.storage.confined.child.lockdown import WRITES, begin, failure, give_up
from wherry.storage.streams import PLAIN

_FILES = 32


def main(arguments: list[str]) -> None:
    """``FD unpack DIR WHITEOUTS COMPRESSION HASHED LIMITS MOUNT`` or ``FD decompress COMPRESSION LIMIT``."""
    begin()
    result_fd, role, *rest = arguments
    try:
        result = _unpack(rest) if role == "unpack" else _decompress(rest)
    except MissingLink as e:
        result = (b"link", str(e).encode("utf-8", "replace"))
    except (BadTar, OSError, MemoryError) as e:
        result = failure(e, "archive")
    data = memoryview(b"\0".join(result))
    while data:
        data = data[os.write(int(result_fd), data) :]
    os._exit(0)


def _unpack(arguments: list[str]) -> tuple[bytes, ...]:
    directory, whiteouts, compression, hashed, packed_limits, mount = arguments
    limits = TarLimits(*map(int, packed_limits.split(",")))
    size = os.fstat(0).st_size
    bound = limits.unpacked(size)
    stream = None
    source: Buffered | Mapped
    next_piece: Callable[[], bytes] | None = None
    if compression == PLAIN and hashed == "0":
        source = Mapped(0)
        if size > limits.unpacked_max:
            raise BadTar(f"it has more than {limits.unpacked_max} bytes")
    else:
        stream = Decompressed(lambda n: os.read(0, n), compression, bound, hashed=hashed == "1")
        next_piece = stream.next_piece
    os.umask(0)
    confine.new_namespaces()
    if mount:
        mount_overlay("overlay", directory, 0, mount.split(","))
    confine.enter_root(directory)
    _give_up(size)
    if next_piece is not None:
        next_piece = ReadAhead(next_piece).next_piece
        source = Buffered(next_piece)
    applier = Applier(TarReader(source, limits), whiteouts)
    applier.run()
    while next_piece is not None and next_piece():
        pass  # data after the archive's end counts for the digest
    return (
        b"ok",
        stream.digest.encode() if stream is not None and hashed == "1" else b"-",
        *(str(n).encode() for n in (applier.size, applier.inodes, applier.entries)),
        str(stream.size if stream is not None else size).encode(),
        str(len(applier.opaque)).encode(),
        *sorted(applier.opaque),
        *sorted(applier.unnamed),
    )


def _decompress(arguments: list[str]) -> tuple[bytes, ...]:
    compression, limit = arguments
    stream = Decompressed(lambda n: os.read(0, n), compression, int(limit), hashed=False)
    confine.new_namespaces()
    calls.mount("none", "/proc", "tmpfs", calls.MS_RDONLY, "size=4k")
    confine.enter_root("/proc")
    _give_up(0)
    while piece := stream.next_piece():
        view = memoryview(piece)
        while view:
            view = view[os.write(1, view) :]
    return (b"ok", b"-", b"0", b"0", b"0", str(stream.size).encode())


def _give_up(mapped: int) -> None:
    give_up(WRITES, files=_FILES, mapped=mapped)
    confine.deny_system_calls()
