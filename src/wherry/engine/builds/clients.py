"""What a build requests from its client. Everything is requested only when it is needed.

Both faces implement it: the Engine API with data that its client sent before (:mod:`given`), BuildKit's face
with calls to the client during the build.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from wherry.engine.builds.requests import Output
from wherry.model.credentials import Credentials
from wherry.model.digest import Digest
from wherry.model.oci import Platform
from wherry.storage.contexts import ENTRIES_MAX, BuildContext, SyncedContext


@dataclass(frozen=True)
class GivenDockerfile:
    """A Dockerfile, and what belongs to it.

    :ivar ignore: the ``.dockerignore``. :ivar hidden: paths of the main context that COPY must not see.
    """

    text: bytes
    ignore: bytes | None = None
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True)
class Delivery:
    """One output, ready to be delivered. ``write`` writes an archive to a file, and blocks."""

    number: int
    output: Output
    write: Callable[[BinaryIO], None]


@dataclass(frozen=True)
class Source:
    """Something that a build is about to use, in the form that policies use: ``docker-image://…``,
    ``git://…``, ``https://…``, ``local://…``. Only images have ``digest`` and ``config``."""

    identifier: str
    platform: Platform | None = None
    digest: str = ""
    config: bytes = b""
    checksum: str = ""


class Blobs(Protocol):
    """Content that the client keeps: an OCI layout, a cache in a directory."""

    async def read(self, digest: Digest, write: Callable[[bytes], object]) -> None:
        """Deliver a blob piece by piece. :raises NotFound: it is not there."""

    async def write(self, digest: Digest, size: int, pieces: BinaryIO) -> None:
        """Send a blob to the client, unless the client has it."""


class BuildClient(Protocol):
    """Its methods are called on the loop. Any exception ends the build."""

    async def dockerfile(self, name: str) -> GivenDockerfile | None:
        """The Dockerfile, if it is not a file of the context.

        :raises InvalidArgument: the client has no such file.
        """

    async def files(self, name: str) -> BuildContext:
        """A context by its name; ``""`` is the main one. The client object releases it.

        :raises InvalidArgument: there is no context of that name.
        """

    async def secret(self, name: str) -> bytes | None:
        """``None``: there is no secret of that name."""

    async def has_agent(self, name: str) -> bool:
        """Whether an SSH agent of that name answers."""

    async def to_agent(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection to an agent until it ends. :raises OSError: the agent is gone."""

    async def credentials(self, registry: str) -> Sequence[Credentials]:
        """The client's credentials for a registry (its host)."""

    async def check(self, source: Source, more: Callable[[], Awaitable[Source]]) -> None:
        """Called before anything is fetched. ``more`` looks up missing facts, for policies that ask for them.

        :raises Forbidden: the client's policy does not allow this source.
        """

    async def deliver(self, delivery: Delivery) -> bool:
        """Deliver an output to the client; ``False`` if the client fetches it later."""

    def blobs(self, store: str) -> Blobs:
        """A store of the client. :raises NotImplemented_: this kind of client has none."""


__all__ = [
    "ENTRIES_MAX",
    "Blobs",
    "BuildClient",
    "BuildContext",
    "Delivery",
    "GivenDockerfile",
    "Source",
    "SyncedContext",
]
