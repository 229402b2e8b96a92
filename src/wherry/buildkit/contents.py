"""Blobs by digest, in both directions: those of the daemon, and those in a store on the client."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, Protocol, cast

from wherry import threads
from wherry.buildkit import sending
from wherry.buildkit.proto import content_pb2
from wherry.buildkit.proto.content_rpc import Content
from wherry.buildkit.sending import Write
from wherry.buildkit.sessions import ClientSession
from wherry.engine.builds.clients import Blobs
from wherry.errors import InvalidArgument, NotFound
from wherry.model import digest as digests
from wherry.model.digest import Digest
from wherry.rpc.metadata import Metadata
from wherry.rpc.server import Route, ServerCall, on
from wherry.rpc.status import Code, RpcError

_STORE = "buildkit-attachable-store-id"
_PIECE = 1 << 20
_EXPORT = "export"
WRITE, COMMIT = content_pb2.WRITE, content_pb2.COMMIT
ReadCall = ServerCall[content_pb2.ReadContentRequest, content_pb2.ReadContentResponse]


class BlobStore(Protocol):
    """The part of the engine's content store that is used here."""

    def open(self, digest: Digest) -> BinaryIO:
        """:raises NotFound: no such blob."""


class SessionBlobs(Blobs):
    """A store on the client: an OCI layout, or a cache in a directory."""

    def __init__(self, session: ClientSession, store: str) -> None:
        if not session.supports(Content.Read):
            raise InvalidArgument(f"the client does not serve the content of {store!r}")
        self._session = session
        self._metadata = Metadata({_STORE: store})

    async def read(self, digest: Digest, write: Callable[[bytes], object]) -> None:
        try:
            request = content_pb2.ReadContentRequest(digest=digest)
            async with self._session.client.stream(Content.Read, self._metadata) as call:
                await call.send(request, end=True)
                while (message := await call.receive()) is not None:
                    await threads.pump(write, message.data)
        except RpcError as e:
            if e.code is Code.NOT_FOUND:
                raise NotFound(f"content {digest} not found in the client's store") from e
            raise

    async def size(self, digest: Digest) -> int:
        """:raises NotFound: the blob does not exist."""
        request = content_pb2.InfoRequest(digest=digest)
        answer = await self._session.client.unary(Content.Info, request, self._metadata, timeout=60)
        return answer.info.size

    async def write(self, digest: Digest, size: int, pieces: BinaryIO) -> None:
        if await self._has(digest):
            return
        async with self._session.client.stream(Content.Write, self._metadata) as call:
            begin = content_pb2.WriteContentRequest(
                action=WRITE, ref=f"wherry-{digest}", total=size, expected=digest
            )
            await call.send(begin)
            await call.receive()
            at = 0
            while piece := await threads.short(pieces.read, _PIECE):
                await call.send(content_pb2.WriteContentRequest(action=WRITE, offset=at, data=piece))
                await call.receive()
                at += len(piece)
            await call.send(
                content_pb2.WriteContentRequest(action=COMMIT, total=size, offset=at, expected=digest)
            )
            try:
                await call.receive()
            except RpcError as e:
                if e.code is not Code.ALREADY_EXISTS:
                    raise

    async def _has(self, digest: Digest) -> bool:
        try:
            await self.size(digest)
        except RpcError as e:
            if e.code is Code.NOT_FOUND:
                return False
            if e.code is not Code.UNIMPLEMENTED:
                raise
            return False
        return True


async def send_layout(session: ClientSession, write: Write, scratch: Path) -> None:
    """Send an image's archive as blobs to the client's store. The client writes the index itself."""

    store = SessionBlobs(session, _EXPORT)
    with tempfile.TemporaryFile(dir=scratch, prefix="scratch-") as file:
        await threads.waits(sending.write_to, write, file)
        for digest, size, blob in _blobs(file):
            await store.write(digest, size, cast(BinaryIO, blob))


def _blobs(file: IO[bytes]) -> Iterator[tuple[Digest, int, IO[bytes]]]:
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            parts = member.name.split("/")
            if len(parts) == 3 and parts[0] == "blobs" and member.isreg():
                blob = tar.extractfile(member)
                assert blob is not None
                yield Digest(f"{parts[1]}:{parts[2]}"), member.size, blob


class ContentService:
    """Read access to the daemon's blobs, and to provenance and traces of the history."""

    def __init__(self, store: BlobStore, history: Callable[[str], bytes]) -> None:
        """:param history: returns a blob of the history by its digest."""
        self._store, self._history = store, history

    def routes(self) -> list[Route]:
        return [on(Content.Info, self.info), on(Content.Read, self.read)]

    async def info(
        self,
        request: content_pb2.InfoRequest,
        _call: ServerCall[content_pb2.InfoRequest, content_pb2.InfoResponse],
    ) -> content_pb2.InfoResponse:
        size = await threads.short(self._size, request.digest)
        return content_pb2.InfoResponse(info=content_pb2.Info(digest=request.digest, size=size))

    def _size(self, text: str) -> int:
        with self._open(text) as file:
            return file.seek(0, 2)

    def _open(self, text: str) -> BinaryIO:
        try:
            return self._store.open(_digest(text))
        except NotFound:
            return io.BytesIO(self._history(text))

    async def read(self, request: content_pb2.ReadContentRequest, call: ReadCall) -> None:
        file = await threads.short(self._open, request.digest)
        try:
            at, left = request.offset, request.size or (1 << 62)
            await threads.short(file.seek, at)
            while left and (piece := await threads.short(file.read, min(_PIECE, left))):
                await call.send(content_pb2.ReadContentResponse(offset=at, data=piece))
                at, left = at + len(piece), left - len(piece)
        finally:
            file.close()


def _digest(text: str) -> Digest:
    if not digests.is_digest(text):
        raise InvalidArgument(f"invalid digest {text[:100]!r}")
    return Digest(text)
