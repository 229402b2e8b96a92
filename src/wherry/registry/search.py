"""Search for repositories: by the search API of older registries and Docker Hub, else in the registry's
catalog."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wherry.registry.errors import REFUSED, UNSUPPORTED, RegistryError, clean
from wherry.registry.repository import Repository

SEARCH_HOST = "index.docker.io"
_CATALOG = "registry:catalog:*"
_PAGE = 1000


@dataclass(frozen=True)
class FoundRepository:
    """A repository; ``stars`` and the other fields are only set if the registry has them."""

    name: str
    description: str = ""
    stars: int = 0
    official: bool = False
    automated: bool = False


async def search(repository: Repository, term: str, limit: int) -> list[FoundRepository]:
    """Repositories whose names contain ``term``, in the registry's order.

    :param repository: opened for a host, without a path.
    :raises RegistryError: UNSUPPORTED if the registry has neither a search nor a catalog.
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


async def _catalog(repository: Repository, term: str, limit: int) -> list[FoundRepository]:
    found: list[FoundRepository] = []
    pages = repository.pages(repository.url(f"_catalog?n={_PAGE}"), scope=_CATALOG)
    async for page in pages:
        names = page.get("repositories") or []
        if not isinstance(names, list):
            raise repository.error(REFUSED, "its catalog is malformed")
        found += [FoundRepository(clean(str(name))) for name in names if term in str(name)]
        if len(found) >= limit:
            break
    return found[:limit]


def _found(entry: dict[str, Any]) -> FoundRepository:
    stars = entry.get("star_count")
    return FoundRepository(
        name=clean(str(entry.get("name") or "")),
        description=clean(str(entry.get("description") or "")),
        stars=stars if isinstance(stars, int) else 0,
        official=bool(entry.get("is_official")),
        automated=bool(entry.get("is_automated")),
    )
