"""A client that sent everything beforehand: one of the Engine API, in the request or in a session."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from wherry import threads
from wherry.engine.builds.agents import relay
from wherry.engine.builds.clients import Blobs, Delivery, GivenDockerfile, Source
from wherry.engine.builds.ignored import Ignored, ignored_of
from wherry.errors import InvalidArgument, NotFound, NotImplemented_
from wherry.linux import syscalls
from wherry.model import digest as digests
from wherry.model.credentials import Credentials
from wherry.model.digest import Digest
from wherry.storage.contexts import BuildContext

_PIECE = 1 << 20
_BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS


@dataclass
class Given:
    """See :class:`wherry.engine.builds.clients.BuildClient`.

    Secrets are bytes by id, agents are paths of sockets on this host by id; ``text`` is a Dockerfile that is
    not a file of the context.
    """

    contexts: dict[str, BuildContext] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)
    agents: dict[str, str] = field(default_factory=dict)
    text: bytes | None = None
    known: Sequence[Credentials] = ()

    async def dockerfile(self, name: str) -> GivenDockerfile | None:
        if self.text is None:
            return None
        context = self.contexts.get("")
        ignored = Ignored() if context is None else await threads.disk(ignored_of, context, name)
        return GivenDockerfile(self.text, ignored.text, ignored.hidden)

    async def files(self, name: str) -> BuildContext:
        try:
            return self.contexts[name]
        except KeyError as e:
            raise InvalidArgument(f"no build context {name or 'was sent'}") from e

    async def secret(self, name: str) -> bytes | None:
        return self.secrets.get(name)

    async def has_agent(self, name: str) -> bool:
        path = self.agents.get(name)
        if path is None:
            return False
        await threads.short(_try, name, path)
        return True

    async def to_agent(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self.agents[name])
        try:
            await relay((reader, back), (there, writer))
        finally:
            back.close()

    async def credentials(self, registry: str) -> Sequence[Credentials]:
        return self.known

    async def check(self, source: Source, more: Callable[[], Awaitable[Source]]) -> None:
        """This client has no policy."""

    async def deliver(self, delivery: Delivery) -> bool:
        return False

    def blobs(self, store: str) -> Blobs:
        """Layouts are sent as contexts; the client writes the cache's directory itself."""
        kind, _, name = store.partition(":")
        layout = self.contexts.get(f"layout:{name}")
        if kind == "oci" and layout is not None:
            return LayoutDirectory(layout)
        raise NotImplemented_("content of the client is not reachable in a build by the Engine API")


class LayoutDirectory(Blobs):
    """An OCI layout among the files that a client has sent."""

    def __init__(self, context: BuildContext) -> None:
        self._root = context.directory / "files"

    async def read(self, digest: Digest, write: Callable[[bytes], object]) -> None:
        await threads.disk(self._read, digest, write)

    def _read(self, digest: Digest, write: Callable[[bytes], object]) -> None:
        root = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            path = f"blobs/sha256/{digests.hex_of(digest)}"
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            fd = syscalls.openat2(root, path, flags, resolve=_BENEATH)
        except OSError as e:
            raise NotFound(f"content {digest} not found in the layout") from e
        finally:
            os.close(root)
        with os.fdopen(fd, "rb") as file:
            while piece := file.read(_PIECE):
                write(piece)

    async def write(self, digest: Digest, size: int, pieces: BinaryIO) -> None:
        raise NotImplemented_("a layout that was sent cannot be written to")


def _try(name: str, path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(path)
        except OSError as e:
            raise InvalidArgument(f"cannot reach SSH agent {name} at {path}: {e.strerror or e}") from e
