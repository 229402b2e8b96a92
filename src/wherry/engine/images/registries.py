"""Registry requests other than pull and push: login, inspect, tags, search, documents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from wherry import threads
from wherry.errors import InvalidArgument, Unauthorized, Unavailable
from wherry.images.store import ImageStore
from wherry.model import digest as digests
from wherry.model import oci, reference
from wherry.model.credentials import ANONYMOUS, Credentials
from wherry.model.digest import Digest
from wherry.model.documents import decode_config, decode_document
from wherry.model.oci import Descriptor, Index, Platform
from wherry.model.reference import Reference
from wherry.registry.distribution import Distribution, key_of
from wherry.registry.errors import DENIED, UNAUTHORIZED, RegistryError, explain
from wherry.registry.fetch import fetch_small
from wherry.registry.push import Pusher
from wherry.registry.repository import Repository
from wherry.registry.resolve import CONFIG_TYPES, Resolved, fetch_target
from wherry.registry.search import SEARCH_HOST, FoundRepository, search

_HUB = "https://index.docker.io/v1/"
_SEARCH_MOST = 100
BLOB_MAX = 16 << 20
"""Bytes of a blob that goes through a client of the API."""


@dataclass(frozen=True)
class Inspected:
    """A target in a registry, and its platforms."""

    target: Descriptor
    platforms: Sequence[Platform]
    data: bytes


class RegistryService:
    """Used on the loop only."""

    def __init__(self, *, distribution: Distribution, images: ImageStore) -> None:
        self._distribution = distribution
        self._images, self._content = images, images.content

    async def login(self, credentials: Credentials) -> str:
        """Check credentials. Returns the identity token to store instead of the password, if there is one.

        :raises Unauthorized: the registry rejects them. :raises Unavailable: it does not answer.
        """
        host = key_of(credentials.server or _HUB)
        asked = f"https://{host}/v2/"
        try:
            async with self._distribution.session() as session:
                mine = replace(credentials, server=host)
                repository = await self._distribution.open_host(session, host, mine, offline=True)
                asked = str(repository.url(""))
                await repository.ping()
                return repository.authorizer.issued
        except RegistryError as e:
            if e.code in (UNAUTHORIZED, DENIED):
                raise Unauthorized(f'Get "{asked}": {e.words}') from e
            kind = Unavailable if e.temporary else InvalidArgument
            raise kind(f'cannot log in: Get "{asked}": {e.words}').as_expected() from e

    async def inspect(self, name: Reference, credentials: Sequence[Credentials]) -> Inspected:
        """What a name points to in its registry. :raises WherryError: see :func:`explain`."""
        name = name.with_default_tag()
        async with self._opened(name, credentials, "inspect") as repository:
            found = await fetch_target(repository, str(name.digest or name.tag))
            return Inspected(found.descriptor, await self._platforms(repository, found), found.data)

    async def _platforms(self, repository: Repository, found: Resolved) -> list[Platform]:
        if isinstance(found.document, Index):
            return [m.platform for m in found.document.manifests if m.platform is not None]
        config = found.document.config
        if config.media_type not in CONFIG_TYPES:
            return []
        return [decode_config(await fetch_small([repository], config, oci.CONFIG_SIZE_MAX)).platform]

    async def tags(self, name: Reference, credentials: Sequence[Credentials]) -> list[str]:
        """Every tag of a repository."""
        async with self._opened(name, credentials, "list the tags of") as repository:
            return await repository.tags()

    async def put(
        self, name: Reference, media_type: str, data: bytes, credentials: Sequence[Credentials]
    ) -> Descriptor:
        """Send a manifest or an index from the caller under a tag.

        :raises InvalidArgument: it is not a manifest or index.
        """
        decode_document(data, media_type)
        descriptor = Descriptor(media_type=media_type, digest=digests.of(data), size=len(data))
        name = name.with_default_tag()
        async with self._opened(name, credentials, "push", actions="pull,push") as repository:
            pusher = Pusher(repository, self._content)
            await pusher.manifest(str(name.digest or name.tag), descriptor, data)
        return descriptor

    async def put_blob(
        self, name: Reference, media_type: str, data: bytes, credentials: Sequence[Credentials]
    ) -> Descriptor:
        """Send a small blob from the caller to a repository, for a manifest that names it."""
        if len(data) > BLOB_MAX:
            raise InvalidArgument(f"cannot send a blob of {len(data)} bytes: at most {BLOB_MAX}")
        try:
            with self._images.leases.hold("blob") as lease:
                digest = await threads.short(self._content.put, data, media_type, lease=lease.id)
                blob = Descriptor(media_type=media_type, digest=digest, size=len(data))
                async with self._opened(name, credentials, "push", actions="pull,push") as repository:
                    await Pusher(repository, self._content).blob(blob)
        finally:
            await threads.disk.surely(self._images.collect)
        return blob

    async def blob(
        self, name: Reference, digest: Digest, size: int, credentials: Sequence[Credentials]
    ) -> bytes:
        """A small blob of a repository. :raises WherryError: see :func:`explain`."""
        wanted = Descriptor(media_type="", digest=digest, size=size)
        async with self._opened(name, credentials, "read from") as repository:
            return await fetch_small([repository], wanted, BLOB_MAX)

    async def search(
        self, term: str, limit: int, credentials: Sequence[Credentials]
    ) -> list[FoundRepository]:
        """Repositories whose names contain the words of the term; ``host/term`` searches that registry.

        :raises InvalidArgument: an empty term, or a limit beyond 1 … 100.
        """
        if not term or "://" in term:
            raise InvalidArgument(f"invalid repository name ({term}): it should not contain a scheme")
        if not 0 <= limit <= _SEARCH_MOST:
            raise InvalidArgument(f"limit {limit} is outside the range of [1, 100]")
        host, slash, rest = term.partition("/")
        if not slash or not ("." in host or ":" in host or host == "localhost"):
            host, rest = SEARCH_HOST, term.removeprefix("library/")
        mine = [one for one in credentials if one and key_of(one.server or host) == key_of(host)]
        known = mine[-1] if mine else ANONYMOUS
        try:
            async with self._distribution.session() as session:
                repository = await self._distribution.open_host(session, host, known)
                return await search(repository, rest, limit or 25)
        except RegistryError as e:
            raise explain(e, reference.parse(f"{host}/{rest or 'x'}"), action="search") from e

    @asynccontextmanager
    async def _opened(
        self, name: Reference, credentials: Sequence[Credentials], action: str, *, actions: str = "pull"
    ) -> AsyncIterator[Repository]:
        try:
            async with self._distribution.session() as session:
                yield (await self._distribution.open(session, name, credentials, actions=actions))[-1]
        except RegistryError as e:
            raise explain(e, name, action=action) from e
