"""Send results to the client: archives as a byte stream, directories file by file, blobs one by one.

The engine always writes an archive. If the client wants a directory, the archive is stored on disk meanwhile,
because the client requests the files in its own order.
"""

from __future__ import annotations

import asyncio
import os
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from wherry import threads
from wherry.buildkit import filesync
from wherry.buildkit.proto import filesync_pb2, fsutil_pb2
from wherry.buildkit.proto.filesync_rpc import FileSend
from wherry.buildkit.sessions import ClientSession
from wherry.errors import InvalidArgument
from wherry.rpc.client import ClientCall
from wherry.rpc.metadata import Metadata
from wherry.rpc.methods import BothStream

_PIECE = 1 << 20
_DATA = 32 << 10
Write = Callable[[BinaryIO], None]
Packet = fsutil_pb2.Packet

# The same path with other message types: a directory is sent as packets.
_PACKETS = BothStream(FileSend.DiffCopy.path, fsutil_pb2.Packet, fsutil_pb2.Packet)


def _metadata(number: int) -> Metadata:
    return Metadata({"buildkit-attachable-exporter-id": str(number)})


async def pieces(write: Write) -> AsyncIterator[bytes]:
    """The output of ``write``, as it is written."""
    reading, writing = os.pipe2(os.O_CLOEXEC)

    def work() -> None:
        with os.fdopen(writing, "wb", buffering=0) as out:
            write(out)

    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_PIECE)
    file = os.fdopen(reading, "rb", buffering=0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    producer = asyncio.ensure_future(threads.waits(work))
    try:
        while piece := await reader.read(_PIECE):
            yield piece
        await producer
    finally:
        transport.close()  # this makes a producer that still writes fail
        await asyncio.gather(producer, return_exceptions=True)


async def send_archive(session: ClientSession, number: int, write: Write) -> None:
    """:raises RpcError: the client refuses it."""
    _supported(session)
    async with session.client.stream(FileSend.DiffCopy, _metadata(number)) as call:
        async for piece in pieces(write):
            await call.send(filesync_pb2.BytesMessage(data=piece))
        await call.end()
        while await call.receive() is not None:
            pass


def _supported(session: ClientSession) -> None:
    if not session.supports(FileSend.DiffCopy):
        raise InvalidArgument("the client takes no files")


# ---- a directory -------------------------------------------------------------------------------------------


async def send_directory(session: ClientSession, number: int, write: Write, scratch: Path) -> None:
    """:param scratch: a directory on a disk with room. :raises RpcError: the client refuses it."""
    _supported(session)
    with tempfile.TemporaryFile(dir=scratch, prefix="scratch-") as file:
        await threads.waits(write_to, write, file)
        entries = await threads.disk(_entries, file)
        async with session.client.stream(_PACKETS, _metadata(number)) as call:
            await _Sender(call, entries, file).run()


def write_to(write: Write, file: IO[bytes]) -> None:
    write(file)  # type: ignore[arg-type]
    file.flush()
    file.seek(0)


@dataclass
class _Entry:
    """``offset`` of the data in the archive; ``first`` is the file that this hard link refers to."""

    path: str
    stat: fsutil_pb2.Stat
    offset: int
    first: str


def _entries(file: IO[bytes]) -> list[_Entry]:
    """STATs in the order of the protocol. If a file has several names, the first one has the data."""
    found: dict[str, _Entry] = {}
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            path = member.name.strip("/")
            kind = _kind(member)
            if path in ("", ".") or kind is None:
                continue
            if member.islnk():
                source = found.get(member.linkname.strip("/"))
                if source is not None:
                    stat = fsutil_pb2.Stat()
                    stat.CopyFrom(source.stat)
                    stat.path = path
                    found[path] = _Entry(path, stat, source.offset, source.first)
                continue
            found[path] = _Entry(path, _stat(member, path, kind), member.offset_data, path)
    entries = sorted(found.values(), key=lambda one: [os.fsencode(part) for part in one.path.split("/")])
    seen: dict[str, str] = {}
    for entry in entries:
        if entry.stat.mode & filesync.GO_TYPE == 0 and (before := seen.setdefault(entry.first, entry.path)):
            entry.stat.linkname = before if before != entry.path else ""
    return entries


def _kind(member: tarfile.TarInfo) -> int | None:
    """Its type bits in Go's modes; ``None`` if it cannot be sent."""
    if member.isdir():
        return filesync.GO_DIRECTORY
    if member.issym():
        return filesync.GO_SYMLINK
    if member.isfifo():
        return filesync.GO_PIPE
    if member.ischr():
        return filesync.GO_DEVICE | filesync.GO_CHARACTER
    if member.isblk():
        return filesync.GO_DEVICE
    return 0 if member.isreg() or member.islnk() else None


def _stat(member: tarfile.TarInfo, path: str, kind: int) -> fsutil_pb2.Stat:
    mode = kind | member.mode & 0o777
    for bit, go in ((0o4000, filesync.GO_SETUID), (0o2000, filesync.GO_SETGID), (0o1000, filesync.GO_STICKY)):
        mode |= go if member.mode & bit else 0
    return fsutil_pb2.Stat(
        path=path,
        mode=mode,
        uid=member.uid,
        gid=member.gid,
        size=member.size if member.isreg() else 0,
        modTime=int(member.mtime * 10**9),
        linkname=member.linkname if member.issym() else "",
        devmajor=member.devmajor,
        devminor=member.devminor,
    )


class _Sender:
    """Send one list of files, and answer the requests for them."""

    def __init__(
        self,
        call: ClientCall[fsutil_pb2.Packet, fsutil_pb2.Packet],
        entries: Sequence[_Entry],
        file: IO[bytes],
    ) -> None:
        self._call, self._entries, self._file = call, entries, file
        self._asked: asyncio.Queue[int | None] = asyncio.Queue()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._walk())
            group.create_task(self._answer())
            await self._listen()

    async def _walk(self) -> None:
        for entry in self._entries:
            await self._call.send(Packet(type=Packet.PACKET_STAT, stat=entry.stat))
        await self._call.send(Packet(type=Packet.PACKET_STAT))

    async def _listen(self) -> None:
        while (packet := await self._call.receive()) is not None:
            if packet.type == Packet.PACKET_REQ:
                if len(self._entries) <= packet.ID or self._asked.qsize() > len(self._entries):
                    raise InvalidArgument("cannot send the result: the client asked for what there is not")
                self._asked.put_nowait(packet.ID)
            elif packet.type == Packet.PACKET_FIN:
                self._asked.put_nowait(None)
            elif packet.type == Packet.PACKET_ERR:
                reason = packet.data.decode("utf-8", "replace")[:1000]
                raise InvalidArgument(f"cannot send the result: {reason}")

    async def _answer(self) -> None:
        while (number := await self._asked.get()) is not None:
            entry = self._entries[number]
            at, end = entry.offset, entry.offset + entry.stat.size
            while at < end:
                piece = await threads.short(os.pread, self._file.fileno(), min(_PIECE, end - at), at)
                if not piece:
                    raise InvalidArgument("cannot send the result: it ended too early")
                for begin in range(0, len(piece), _DATA):
                    data = piece[begin : begin + _DATA]
                    await self._call.send(Packet(type=Packet.PACKET_DATA, ID=number, data=data))
                at += len(piece)
            await self._call.send(Packet(type=Packet.PACKET_DATA, ID=number))
        await self._call.send(Packet(type=Packet.PACKET_FIN), end=True)
