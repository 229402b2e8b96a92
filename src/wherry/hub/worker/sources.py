"""Sources of an import: a running registry (:class:`wherry.hub.remote.registry.Registry`), or the data
directory of the distribution project's registry:

    docker/registry/v2/repositories/<name>/_manifests/tags/<tag>/current/link
                                           _manifests/revisions/sha256/<hex>/link
    docker/registry/v2/blobs/sha256/<first two digits>/<hex>/data
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from wherry import threads
from wherry.errors import NotFound
from wherry.hub.core import digests, names
from wherry.hub.core.refusals import Refusal
from wherry.hub.store.objects import CHUNK


class RegistrySource(Protocol):
    """:meth:`blob` returns unverified bytes."""

    def repositories(self) -> AsyncIterator[str]: ...
    def tags(self, repository: str) -> AsyncIterator[str]: ...
    def untagged(self, repository: str) -> AsyncIterator[str]:
        """Digests of untagged manifests, if the source can list them."""
        ...

    async def manifest(self, repository: str, reference: str) -> tuple[str, bytes]:
        """The media type (empty if unknown) and the bytes of a manifest. :raises NotFound:"""
        ...

    def blob(self, repository: str, digest: str) -> AsyncIterator[bytes]:
        """:raises NotFound:"""
        ...


class Directory:
    """A data directory, as the module's docstring shows it."""

    def __init__(self, root: Path) -> None:
        """:raises NotFound: not the data directory of a registry."""
        places = [root / "docker" / "registry" / "v2", root]
        self._root = next((place for place in places if (place / "repositories").is_dir()), None)
        if self._root is None:
            raise NotFound(f"not the data directory of a registry: {root}")
        self._repositories = self._root / "repositories"

    async def repositories(self) -> AsyncIterator[str]:
        def find() -> list[str]:
            return sorted(
                str(path.parent.relative_to(self._repositories))
                for path in self._repositories.glob("**/_manifests")
            )

        for name in await threads.disk(find):
            yield name

    async def tags(self, repository: str) -> AsyncIterator[str]:
        place = self._repositories / repository / "_manifests" / "tags"
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if names.is_tag(path.name):
                yield path.name

    async def untagged(self, repository: str) -> AsyncIterator[str]:
        place = self._repositories / repository / "_manifests" / "revisions"
        for path in sorted(place.glob("*/*/link")):
            yield self._link(path)

    def _link(self, path: Path) -> str:
        try:
            return digests.check(path.read_text().strip())
        except (OSError, Refusal) as e:
            raise NotFound(f"no manifest at {path}") from e

    async def manifest(self, repository: str, reference: str) -> tuple[str, bytes]:
        place = self._repositories / repository / "_manifests"
        digest = reference
        if ":" not in reference:
            digest = self._link(place / "tags" / reference / "current" / "link")
        elif not (place / "revisions" / digest.replace(":", "/") / "link").is_file():
            raise NotFound(f"no manifest {digest} in {repository}")
        try:
            return "", await threads.disk(self._data(digest).read_bytes)
        except FileNotFoundError as e:
            raise NotFound(f"no manifest {digest}") from e

    def _data(self, digest: str) -> Path:
        algorithm, _, text = digests.check(digest).partition(":")
        assert self._root is not None
        return self._root / "blobs" / algorithm / text[:2] / text / "data"

    async def blob(self, repository: str, digest: str) -> AsyncIterator[bytes]:
        try:
            file = await threads.disk(self._data(digest).open, "rb")
        except FileNotFoundError as e:
            raise NotFound(f"no blob {digest}") from e
        with file:
            while piece := await threads.disk(file.read, CHUNK):
                yield piece
