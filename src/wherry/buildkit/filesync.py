"""Receive the client's files by fsutil's protocol: it lists its files, we request missing ones, it sends
them.

    client                                us
    STAT STAT STAT … (empty)        ->
                                    <-    REQ id         (a position among the STATs), several at once
    DATA id … DATA id (empty: end)  ->                   of several files in turn
                                    <-    FIN
    FIN                             ->

The files are written as an archive to the confined child that stores the context, so their data must be in
the order of the list. A few files are requested ahead; data that arrives early is buffered here. Names, their
order and the targets of hard links are checked. A file that grew or shrank meanwhile is cut or padded to its
announced size.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import posixpath
import stat as stat_
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote_plus

from wherry import threads
from wherry.buildkit.proto import fsutil_pb2
from wherry.buildkit.proto.filesync_rpc import FileSync
from wherry.buildkit.sessions import ClientSession
from wherry.engine.builds.clients import ENTRIES_MAX, SyncedContext
from wherry.engine.builds.receiving import receive_archive
from wherry.errors import InvalidArgument
from wherry.model import tarformat as tf
from wherry.model import tarwriter
from wherry.model.tarwriter import TarMember
from wherry.rpc.client import ClientCall
from wherry.rpc.metadata import Metadata

Packet = fsutil_pb2.Packet
Call = ClientCall[fsutil_pb2.Packet, fsutil_pb2.Packet]

GO_DIRECTORY, GO_SYMLINK = 1 << 31, 1 << 27
GO_DEVICE, GO_PIPE, GO_SOCKET, GO_CHARACTER = 1 << 26, 1 << 25, 1 << 24, 1 << 21
GO_SETUID, GO_SETGID, GO_STICKY = 1 << 23, 1 << 22, 1 << 20
GO_TYPE = GO_DIRECTORY | GO_SYMLINK | GO_DEVICE | GO_PIPE | GO_SOCKET | GO_CHARACTER
_AHEAD = 8 << 20
"""The maximum number of bytes that are requested ahead."""
_AHEAD_FILES = 256
_SMALL_MAX = 4 << 20
_PIPE = 1 << 20
_GATHER = 256 << 10
_SIZE_MAX = 1 << 50


@dataclass(frozen=True)
class WantedFiles:
    """Selects files of a directory: patterns as in ``.dockerignore`` exclude files; with ``follow`` only
    those paths are sent."""

    directory: str
    exclude: Sequence[str] = ()
    follow: Sequence[str] = ()

    def metadata(self) -> Metadata:
        pairs = [("dir-name", self.directory)]
        for key, values in (("exclude-patterns", self.exclude), ("followpaths", self.follow)):
            plain = all(_is_plain(one) for one in values)
            pairs += [(key, one if plain else quote_plus(one)) for one in values]
            if not plain:
                pairs.append((f"{key}-encoded", "1"))
        return Metadata(pairs)


def _is_plain(text: str) -> bool:
    return all(" " <= one <= "~" for one in text) and text == text.strip(" ")


def permissions(mode: int) -> int:
    """The permission bits for chmod(2) from a Go mode."""
    return (
        mode & 0o777
        | (stat_.S_ISUID if mode & GO_SETUID else 0)
        | (stat_.S_ISGID if mode & GO_SETGID else 0)
        | (stat_.S_ISVTX if mode & GO_STICKY else 0)
    )


@asynccontextmanager
async def _call(session: ClientSession, wanted: WantedFiles) -> AsyncIterator[Call]:
    if not session.supports(FileSync.DiffCopy):
        raise InvalidArgument(f"the client does not serve the files of {wanted.directory!r}")
    async with session.client.stream(FileSync.DiffCopy, wanted.metadata()) as call:
        yield call


async def _packet(call: Call, what: str) -> fsutil_pb2.Packet:
    packet = await call.receive()
    if packet is None:
        raise InvalidArgument(f"cannot read {what}: the client ended too early")
    if packet.type == Packet.PACKET_ERR:
        reason = packet.data.decode("utf-8", "replace")[:1000]
        raise InvalidArgument(f"cannot read {what}: {reason}")
    return packet


async def _finish(call: Call, what: str) -> None:
    await call.send(Packet(type=Packet.PACKET_FIN), end=True)
    while (packet := await call.receive()) is not None:
        if packet.type == Packet.PACKET_ERR:
            raise InvalidArgument(f"cannot read {what}: {packet.data.decode('utf-8', 'replace')[:1000]}")


# ---- the walk ----------------------------------------------------------------------------------------------


class Walk:
    """The STATs of one call, each checked against those before it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.stats: list[fsutil_pb2.Stat] = []
        self.paths: list[bytes] = []
        self.position: dict[bytes, int] = {}
        self._last: list[bytes] = []

    def add(self, stat: fsutil_pb2.Stat) -> None:
        """:raises InvalidArgument: an invalid name, or names in the wrong order."""
        path = stat.path.encode("utf-8", "surrogateescape")
        parts = path.split(b"/")
        if not path or b"\0" in path or any(part in (b"", b".", b"..") for part in parts):
            raise InvalidArgument(f"cannot read {self._what}: invalid name {tf.show(path)}")
        if parts <= self._last:
            raise InvalidArgument(f"cannot read {self._what}: {tf.show(path)} is out of order")
        parent = self.position.get(path.rpartition(b"/")[0])
        if parent is not None and not self.stats[parent].mode & GO_DIRECTORY:
            raise InvalidArgument(
                f"cannot read {self._what}: {tf.show(path)} is below something that is not a directory"
            )
        if not 0 <= stat.size <= _SIZE_MAX:
            raise InvalidArgument(f"cannot read {self._what}: {tf.show(path)} has {stat.size} bytes")
        if len(self.stats) >= ENTRIES_MAX:
            raise InvalidArgument(f"cannot read {self._what}: it has more than {ENTRIES_MAX} files")
        self._last = parts
        self.position[path] = len(self.stats)
        self.stats.append(stat)
        self.paths.append(path)

    def link_of(self, number: int) -> int | None:
        """The file that this one is a hard link to. :raises InvalidArgument: it was not sent before."""
        stat = self.stats[number]
        if not stat.linkname or stat.mode & GO_TYPE:
            return None
        target = self.position.get(stat.linkname.strip("/").encode("utf-8", "surrogateescape"), number)
        if target >= number or self.stats[target].mode & GO_TYPE or self.stats[target].linkname:
            name = tf.show(self.paths[number])
            raise InvalidArgument(
                f"cannot read {self._what}: {name} is a hard link to {stat.linkname!r}, which was not sent"
            )
        return target

    def kind(self, number: int) -> bytes:
        """The kind in manifests; ``b""`` for files that are useless elsewhere."""
        kind = self.stats[number].mode & GO_TYPE
        if not kind:
            return b"f"
        return {GO_DIRECTORY: b"d", GO_SYMLINK: b"l", GO_PIPE: b"o"}.get(kind, b"")


async def _walk(call: Call, what: str) -> Walk:
    walk = Walk(what)
    while True:
        packet = await _packet(call, what)
        if packet.type != Packet.PACKET_STAT:
            raise InvalidArgument(f"cannot read {what}: the client sent packet {packet.type} too early")
        if not packet.HasField("stat"):
            return walk
        walk.add(packet.stat)


# ---- a few small files -------------------------------------------------------------------------------------


async def read_small(session: ClientSession, wanted: WantedFiles, what: str) -> Mapping[str, bytes]:
    """Receives small files into memory, by their paths. Symbolic links between them are followed."""
    found: dict[str, bytes] = {}
    links: dict[str, str] = {}
    async with _call(session, wanted) as call:
        walk = await _walk(call, what)
        open_: dict[int, bytearray] = {}
        for number, stat in enumerate(walk.stats):
            if stat.mode & GO_TYPE == GO_SYMLINK:
                links[stat.path] = stat.linkname
            elif not stat.mode & GO_TYPE:
                if stat.size > _SMALL_MAX:
                    raise InvalidArgument(f"cannot read {what}: {stat.path} has {stat.size} bytes")
                open_[number] = bytearray()
                await call.send(Packet(type=Packet.PACKET_REQ, ID=number))
        while open_:
            packet = await _packet(call, what)
            data = open_.get(packet.ID) if packet.type == Packet.PACKET_DATA else None
            if data is None:
                raise InvalidArgument(f"cannot read {what}: the client sent what it was not asked for")
            if packet.data:
                data += packet.data
                if len(data) > _SMALL_MAX:
                    raise InvalidArgument(f"cannot read {what}: it has more than {_SMALL_MAX} bytes")
            else:
                found[walk.stats[packet.ID].path] = bytes(open_.pop(packet.ID))
        await _finish(call, what)
    for path in links:
        target = path
        for _ in range(16):
            if target not in links:
                break
            target = posixpath.normpath(posixpath.join(posixpath.dirname(target), links[target])).lstrip("/")
        if target in found:
            found[path] = found[target]
    return found


# ---- a context ---------------------------------------------------------------------------------------------


async def receive(
    session: ClientSession,
    wanted: WantedFiles,
    context: SyncedContext,
    told: Callable[[int], None],
    what: str = "the build context",
) -> None:
    """Bring a context up to date. :param told: called with the number of bytes received so far.

    :raises InvalidArgument: the data is malformed or hostile. :raises RpcError: the client has gone.
    """
    async with _call(session, wanted) as call:
        walk = await _walk(call, what)
        manifest, positions = _manifest(walk)
        need = [positions[one] for one in await threads.disk(context.begin, manifest)]
        if context.is_current:
            await threads.disk(context.settle)
        else:
            await _fetch(call, walk, _with_targets(walk, need), context, told, what)
        await _finish(call, what)


def _manifest(walk: Walk) -> tuple[bytes, list[int]]:
    """The list for :meth:`SyncedContext.begin`, and the STAT of each entry."""
    parts: list[bytes] = []
    positions: list[int] = []
    for number, (path, stat) in enumerate(zip(walk.paths, walk.stats, strict=True)):
        kind = walk.kind(number)
        if not kind:
            continue  # contexts contain no devices
        target = walk.link_of(number)
        mode = permissions(stat.mode)
        size = 0 if kind != b"f" else (stat if target is None else walk.stats[target]).size
        link = stat.linkname.encode("utf-8", "surrogateescape") if kind == b"l" else b""
        stamp = b"%d" % stat.modTime if kind == b"f" else b"0"
        if target is not None:
            stamp += b":%d" % target
        parts.append(
            b"%s\0%s\0%o\0%d\0%d\0%s\0%s\0" % (path, kind, mode, size, _seconds(stat, kind), link, stamp)
        )
        positions.append(number)
    return b"".join(parts), positions


def _seconds(stat: fsutil_pb2.Stat, kind: bytes) -> int:
    """Modification time in whole seconds, as in archives; 0 for links, where it does not matter."""
    return 0 if kind == b"l" else stat.modTime // 10**9 * 10**9


def _with_targets(walk: Walk, need: Iterable[int]) -> list[int]:
    """Also request the files that hard links refer to."""
    wanted = set(need)
    wanted |= {target for one in list(wanted) if (target := walk.link_of(one)) is not None}
    return sorted(wanted)


async def _fetch(
    call: Call,
    walk: Walk,
    need: Sequence[int],
    context: SyncedContext,
    told: Callable[[int], None],
    what: str,
) -> None:
    async with pipe_to(lambda fd: receive_archive(context, fd)) as out:
        await _Archive(call, walk, out, told, what).write(need)


@asynccontextmanager
async def pipe_to(begin: Callable[[int], Coroutine[None, None, None]]) -> AsyncIterator[asyncio.StreamWriter]:
    """A pipe with a concurrent reader: ``begin`` receives the reading end.

    Wait for the reader at the end; its exception takes precedence over errors of writing.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, _PIPE)
        writer = await _writer(writing)
    except BaseException:
        os.close(reading)
        raise
    receiving = asyncio.ensure_future(begin(reading))
    # The reader owns its end until it has ended, even if this task is cancelled.
    receiving.add_done_callback(lambda _done: os.close(reading))
    try:
        yield writer
    except (BrokenPipeError, ConnectionResetError):
        pass  # the reader has ended, and says why
    except BaseException:
        receiving.cancel()
        writer.transport.abort()
        await asyncio.wait([receiving])
        raise
    writer.close()
    try:
        await receiving
    except BaseException:
        writer.transport.abort()
        raise


async def _writer(fd: int) -> asyncio.StreamWriter:
    """Writes to a pipe, and owns its writing end."""
    loop = asyncio.get_running_loop()
    file = os.fdopen(fd, "wb", buffering=0)
    try:
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, file)
    except BaseException:
        file.close()
        raise
    transport.set_write_buffer_limits(_PIPE)
    return asyncio.StreamWriter(transport, protocol, None, loop)


class _Archive:
    """Writes the requested files as an archive, in the order of the list."""

    def __init__(
        self, call: Call, walk: Walk, out: asyncio.StreamWriter, told: Callable[[int], None], what: str
    ) -> None:
        self._call, self._walk, self._out, self._told, self._what = call, walk, out, told, what
        self._held: list[bytes] = []
        self._size = 0
        self._came = 0
        self._early: dict[int, bytearray] = {}
        self._open: set[int] = set()
        self._ahead = 0

    async def write(self, need: Sequence[int]) -> None:
        files = [one for one in need if self._has_data(one)]
        self._asked = 0
        self._files = files
        for number in need:
            await self._member(number)
        self._put(tarwriter.END)
        await self._flush()

    def _has_data(self, number: int) -> bool:
        return self._walk.kind(number) == b"f" and self._walk.link_of(number) is None

    async def _member(self, number: int) -> None:
        stat, path = self._walk.stats[number], self._walk.paths[number]
        kind, mode = self._walk.kind(number), permissions(stat.mode)
        mtime = _seconds(stat, kind)
        target = self._walk.link_of(number)
        if kind == b"d":
            member = TarMember(name=path + b"/", type=tf.DIRECTORY, mode=mode, mtime=mtime)
        elif kind == b"l":
            link = stat.linkname.encode("utf-8", "surrogateescape")
            member = TarMember(name=path, type=tf.SYMLINK, mode=0o777, mtime=mtime, linkname=link)
        elif kind == b"o":
            member = TarMember(name=path, type=tf.FIFO, mode=mode, mtime=mtime)
        elif target is not None:
            linked = self._walk.paths[target]
            member = TarMember(name=path, type=tf.LINK, mode=mode, mtime=mtime, linkname=linked)
        else:
            self._put(tarwriter.header(TarMember(path, tf.FILE, mode, size=stat.size, mtime=mtime)))
            await self._data(number, stat.size)
            return
        self._put(tarwriter.header(member))
        if self._size >= _GATHER:
            await self._flush()

    async def _data(self, number: int, size: int) -> None:
        """Write a file's data, cut or padded to its announced size."""
        await self._ask(number)
        left = size
        early = self._early.pop(number, None)
        if early:
            piece = bytes(early[:left])
            self._put(piece)
            left -= len(piece)
        while number in self._open:
            packet = await self._next()
            if number != packet.ID:
                continue
            piece = packet.data[:left]
            if piece:
                self._put(piece)
                left -= len(piece)
            if self._size >= _GATHER:
                await self._flush()
        self._ahead -= size
        while left:
            piece = bytes(min(left, _GATHER))
            self._put(piece)
            left -= len(piece)
            await self._flush()
        self._put(tarwriter.padding(size))
        if self._size >= _GATHER:
            await self._flush()

    async def _ask(self, current: int) -> None:
        """Request this file, and as many of the next ones as the buffer allows."""
        while self._asked < len(self._files):
            number = self._files[self._asked]
            size = self._walk.stats[number].size
            waiting = len(self._early)
            if number != current and (self._ahead + size > _AHEAD or waiting >= _AHEAD_FILES):
                return
            await self._call.send(Packet(type=Packet.PACKET_REQ, ID=number))
            self._early[number] = bytearray()
            self._open.add(number)
            self._ahead += size
            self._asked += 1

    async def _next(self) -> fsutil_pb2.Packet:
        """The next packet; early data of later files is buffered."""
        packet = await _packet(self._call, self._what)
        number = packet.ID
        if packet.type != Packet.PACKET_DATA or number not in self._open:
            raise InvalidArgument(f"cannot read {self._what}: the client sent what it was not asked for")
        if not packet.data:
            self._open.discard(number)
            return packet
        self._came += len(packet.data)
        self._told(self._came)
        early = self._early.get(number)
        if early is not None:
            room = self._walk.stats[number].size - len(early)
            early += packet.data[:room]
        return packet

    def _put(self, data: bytes) -> None:
        self._held.append(data)
        self._size += len(data)

    async def _flush(self) -> None:
        self._out.write(b"".join(self._held))
        self._held, self._size = [], 0
        await self._out.drain()


__all__ = ["Walk", "WantedFiles", "permissions", "read_small", "receive"]
