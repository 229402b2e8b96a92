"""Layers are unpacked, and streams are decompressed, by confined children.

The daemon itself never decompresses or unpacks other people's data. Each layer gets its own child
(:mod:`wherry.storage.confined.child.unpack`), which sees only the stream and the target directory. It has six
capabilities, no network, no access to other processes, and limits on memory, entries and bytes.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from wherry.errors import InvalidArgument
from wherry.linux import syscalls as sys
from wherry.linux.pychild import DEVNULL, PIPE, PythonChild
from wherry.model.digest import Digest
from wherry.model.mount import Mount
from wherry.model.tarformat import TarLimits
from wherry.storage import streams
from wherry.storage.confined import children
from wherry.storage.layerformat import OVERLAY
from wherry.storage.streams import Readable

_MODULE = "wherry.storage.confined.child.unpack"
_HOSTILE = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST, errno.EINVAL}
)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class NeedsParent(InvalidArgument):
    """A layer has a hard link to a file of a lower layer, so it cannot be unpacked on its own."""


@dataclass(frozen=True)
class Unpacked:
    """The result: ``size`` in bytes on disk, ``stream_size`` of the uncompressed layer, ``unnamed`` the
    directories that the layer needs but has no entry of (``b""``: its root)."""

    diff_id: Digest
    size: int
    inodes: int
    entries: int
    stream_size: int
    unnamed: tuple[bytes, ...] = ()


class Unpacker:
    """Runs the children, at most one per CPU at a time. Safe to use from any thread."""

    def __init__(self, limits: TarLimits | None = None) -> None:
        self.limits = limits or TarLimits()
        self.parallel = len(os.sched_getaffinity(0))
        self._slots = threading.BoundedSemaphore(self.parallel)

    def unpack(
        self,
        blob: Path | int,
        mount: Mount,
        *,
        whiteouts: str,
        digest: Digest,
        expected: Digest | None = None,
    ) -> Unpacked:
        """Unpack one layer into ``mount`` (a bind, or an overlay that the child mounts on its upper).

        :param blob: a path, or an open descriptor of a file that may be renamed meanwhile.
        :param whiteouts: ``overlay`` or ``merge``, see :mod:`wherry.storage.confined.child.apply`.
        :param digest: the blob's digest, verified when it was stored: for a plain tar it is the diff id.
        :param expected: the diff id in the image's configuration.
        :raises InvalidArgument: the layer is hostile or broken, or its diff id is another one.
        :raises NeedsParent: see there; only with ``overlay``.
        :raises Unavailable: the disk is full. :raises Internal: the host refused.
        """
        fd = os.open(blob if isinstance(blob, Path) else f"/proc/self/fd/{blob}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            compression = streams.detect(os.pread(fd, 6, 0))
            if compression in (streams.BZIP2, streams.XZ):
                raise InvalidArgument(f"cannot unpack layer {digest}: {compression} is not a layer format")
            hashed = compression != streams.PLAIN
            directory, data = _target(mount)
            limits = ",".join(map(str, astuple(self.limits)))
            role = ("unpack", directory, whiteouts, compression, str(int(hashed)), limits, data)
            with (
                self._slots,
                children.start(_MODULE, role, stdin=fd, stdout=DEVNULL) as child,
            ):
                fields = _checked(child, f"cannot unpack layer {digest}")
        finally:
            os.close(fd)
        diff_id = Digest(fields[1].decode()) if hashed else digest
        if expected is not None and diff_id != expected:
            raise InvalidArgument(f"cannot unpack layer {digest}: its content is {diff_id}, not {expected}")
        if whiteouts == OVERLAY:
            _mark_opaque(directory, fields[7 : 7 + int(fields[6])])
        size, inodes, entries, stream_size, opaque = map(int, fields[2:7])
        return Unpacked(diff_id, size, inodes, entries, stream_size, tuple(fields[7 + opaque :]))

    @contextmanager
    def decompress(self, stream: Readable) -> Iterator[Readable]:
        """A stream of the decompressed bytes of ``stream`` (gzip, zstd, bzip2, xz, or not compressed).

        :raises InvalidArgument: on leaving, if the compressed data was broken or exceeded the limit.
        """
        head = streams.read_head(stream)
        compression = streams.detect(head)
        if compression == streams.PLAIN:
            yield streams.Rejoined(head, stream)
            return
        role = ("decompress", compression, str(self.limits.unpacked_max))
        with children.start(_MODULE, role, stdin=PIPE, stdout=PIPE) as child:
            feeder = threading.Thread(target=_feed, args=(head, stream, child), daemon=True)
            feeder.start()
            assert child.process.stdout is not None
            yield child.process.stdout
            if not child.process.stdout.read(1):
                _checked(child, "cannot read the archive")


def _target(mount: Mount) -> tuple[str, str]:
    if mount.type == "bind":
        return mount.source, ""
    upper = next(o.removeprefix("upperdir=") for o in mount.options if o.startswith("upperdir="))
    return upper, ",".join(mount.options)


def _checked(child: PythonChild, what: str) -> list[bytes]:
    """The fields of a good result; a bad one is raised as an error."""
    result, code, errors = child.result()
    fields = result.split(b"\0")
    if fields[0] == b"ok":
        return fields
    if fields[0] == b"link":
        raise NeedsParent(f"{what}: {fields[-1].decode('utf-8', 'replace')}")
    if fields[0] in (b"bad", b"os"):
        children.fail(fields, what, wrong=_HOSTILE)
    raise children.ended_early(f"{what}: the unpacker", code, errors)


def _mark_opaque(directory: str, paths: list[bytes]) -> None:
    """Set the attribute that the child has no right to set, only on directories and never through a link."""
    if not paths:
        return
    root = os.open(directory, _DIRECTORY | os.O_CLOEXEC)
    try:
        for path in paths:
            fd = sys.openat2(root, os.fsdecode(path) or ".", _DIRECTORY, resolve=sys.RESOLVE_BENEATH)
            try:
                os.setxattr(fd, b"trusted.overlay.opaque", b"y")
            finally:
                os.close(fd)
    finally:
        os.close(root)


def _feed(head: bytes, stream: Readable, child: PythonChild) -> None:
    """Copy the stream into the child until either ends; if the reader is gone, that is no error."""
    assert child.process.stdin is not None
    try:
        with child.process.stdin as pipe:
            pipe.write(head)
            while piece := stream.read(1 << 18):
                pipe.write(piece)
    except (OSError, ValueError):
        return
