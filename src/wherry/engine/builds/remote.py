"""``remote``: a context behind an address: a repository, an archive, or a Dockerfile and nothing else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from wherry.build.graph import FetchOp
from wherry.build.plan import filename_of, is_git_url
from wherry.engine.builds.cache import BuildCache
from wherry.engine.builds.fetching import Fetcher
from wherry.engine.builds.requests import BuildRequest
from wherry.errors import InvalidArgument
from wherry.storage import diff, streams
from wherry.storage.children import Ending
from wherry.storage.contexts import Context

_DOCKERFILE_MAX = 4 << 20


@asynccontextmanager
async def remote_context(
    request: BuildRequest, fetcher: Fetcher, cache: BuildCache
) -> AsyncIterator[tuple[BuildRequest, Context | None]]:
    """:raises InvalidArgument: there is nothing at the address, or nothing to build from."""
    url = request.remote
    git = is_git_url(url)
    if not git and not url.startswith(("http://", "https://")):
        raise InvalidArgument(f"invalid remote context {url[:200]!r}: a git or HTTP address")
    keep = request.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "") in ("1", "true")
    op = FetchOp("git" if git else "http", url, "", filename_of(url) or "context", keep)
    found = await fetcher.fetch(op)
    context = None
    try:
        if git:
            context = await asyncio.to_thread(_from_directory, found.directory, cache)
        else:
            path = found.directory / op.filename
            if await asyncio.to_thread(_is_archive, path):
                context = await asyncio.to_thread(_from_archive, path, cache)
            else:
                request = replace(request, text=await asyncio.to_thread(_text, path), dockerfile="Dockerfile")
        yield request, context
    finally:
        if context is not None:
            await asyncio.shield(asyncio.to_thread(context.release))
        cache.release([found.record])


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(512)
    return streams.detect(head[:6]) != streams.PLAIN or head[257:262] == b"ustar"


def _text(path: Path) -> bytes:
    if path.stat().st_size > _DOCKERFILE_MAX:
        raise InvalidArgument(f"the Dockerfile has more than {_DOCKERFILE_MAX} bytes")
    return path.read_bytes()


def _from_archive(path: Path, cache: BuildCache) -> Context:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _received(fd, cache)
    finally:
        os.close(fd)


def _from_directory(directory: Path, cache: BuildCache) -> Context:
    """A checkout goes the way of every other context, through a confined child."""
    archive = cache.root / f"scratch-{os.urandom(6).hex()}"
    with archive.open("w+b") as file:
        archive.unlink()
        diff.write_tree(directory, file)
        file.flush()
        file.seek(0)
        return _received(file.fileno(), cache)


def _received(fd: int, cache: BuildCache) -> Context:
    context = cache.contexts.once()
    try:
        context.receive(fd, Ending())
    except BaseException:
        context.release()
        raise
    return context
