"""Looking for repositories: the search of older registries and Docker Hub, else a registry's catalog."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wherry.registry.errors import REFUSED, UNSUPPORTED, RegistryError, clean
from wherry.registry.repository import Repository

SEARCH_HOST = "index.docker.io"
_CATALOG = "registry:catalog:*"
_PAGE = 1000


@dataclass(frozen=True)
class Found:
    """A repository; ``stars`` and the rest only where the registry counts them."""

    name: str
    description: str = ""
    stars: int = 0
    official: bool = False
    automated: bool = False


async def search(repository: Repository, term: str, limit: int) -> list[Found]:
    """Repositories whose names have ``term`` in them, as the registry ranks them.

    :param repository: opened for a host, without a path.
    :raises RegistryError: UNSUPPORTED where the registry has neither a search nor a catalog.
    """
    url = repository.base.with_path("/v1/search").with_query({"q": term, "n": str(limit)})
    try:
        async for page in repository.pages(url):
            results = page.get("results")
            if isinstance(results, list):
                return [_found(entry) for entry in results[:limit] if isinstance(entry, dict)]
            break
    except RegistryError as e:
        if e.temporary or e.status == 401:
            raise
    try:
        return await _catalog(repository, term, limit)
    except RegistryError as e:
        if e.status in (403, 404, 405):
            raise repository.error(UNSUPPORTED, "it has neither a search nor a catalog") from e
        raise


async def _catalog(repository: Repository, term: str, limit: int) -> list[Found]:
    found: list[Found] = []
    pages = repository.pages(repository.url(f"_catalog?n={_PAGE}"), scope=_CATALOG)
    async for page in pages:
        names = page.get("repositories") or []
        if not isinstance(names, list):
            raise repository.error(REFUSED, "its catalog is none")
        found += [Found(clean(str(name))) for name in names if term in str(name)]
        if len(found) >= limit:
            break
    return found[:limit]


def _found(entry: dict[str, Any]) -> Found:
    stars = entry.get("star_count")
    return Found(
        name=clean(str(entry.get("name") or "")),
        description=clean(str(entry.get("description") or "")),
        stars=stars if isinstance(stars, int) else 0,
        official=bool(entry.get("is_official")),
        automated=bool(entry.get("is_automated")),
    )
