"""What ADD and named contexts take from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wherry.build.graph import FetchOp
from wherry.errors import NotImplemented_


@dataclass(frozen=True)
class Fetched:
    """A directory with what came; ``digest`` of it, ``record`` of the cache that keeps it."""

    directory: Path
    digest: str
    record: str


class Fetcher:
    async def fetch(self, op: FetchOp) -> Fetched:
        raise NotImplemented_(f"fetching {op.url} is not implemented yet")
