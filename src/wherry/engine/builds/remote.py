"""``remote``: a context at an address: a repository, an archive, or only a Dockerfile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from wherry import threads
from wherry.dockerfile.urls import filename_of, is_git_url
from wherry.engine.builds.cache import BuildCache
from wherry.engine.builds.fetching import SourceFetcher
from wherry.engine.builds.requests import BuildRequest
from wherry.errors import InvalidArgument
from wherry.solver.graph import FetchOp
from wherry.storage import diff, streams
from wherry.storage.confined.children import Ending
from wherry.storage.contexts import BuildContext

_DOCKERFILE_MAX = 4 << 20


@asynccontextmanager
async def remote_context(
    request: BuildRequest, fetcher: SourceFetcher, cache: BuildCache
) -> AsyncIterator[tuple[BuildRequest, BuildContext | None]]:
    """:raises InvalidArgument: there is nothing at the address, or it cannot be built from."""
    op = remote_operation(request)
    found = await fetcher.fetch(op)
    context = None
    try:
        if op.kind == "git":
            context = await threads.child(_from_directory, found.directory, cache)
        else:
            path = found.directory / op.filename
            if await threads.short(is_archive, path):
                context = await threads.child(from_archive, path, cache)
            else:
                request = replace(request, text=await threads.short(_text, path), dockerfile="Dockerfile")
        yield request, context
    finally:
        if context is not None:
            await asyncio.shield(threads.disk(context.release))
        cache.release([found.record])


def remote_operation(request: BuildRequest) -> FetchOp:
    """The operation that fetches the context at ``request.remote``.
    :raises InvalidArgument: invalid address."""
    url = request.remote
    git = is_git_url(url)
    if not git and not url.startswith(("http://", "https://")):
        raise InvalidArgument(f"invalid remote context {url[:200]!r}: a git or HTTP address")
    keep = request.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "") in ("1", "true")
    return FetchOp("git" if git else "http", url, "", filename_of(url) or "context", keep)


def is_archive(path: Path) -> bool:
    """Whether a file is an archive, compressed or not. Blocks."""
    with path.open("rb") as file:
        head = file.read(512)
    return streams.detect(head[:6]) != streams.PLAIN or head[257:262] == b"ustar"


def _text(path: Path) -> bytes:
    if path.stat().st_size > _DOCKERFILE_MAX:
        raise InvalidArgument(f"the Dockerfile has more than {_DOCKERFILE_MAX} bytes")
    return path.read_bytes()


def from_archive(path: Path, cache: BuildCache) -> BuildContext:
    """The files of an archive as a context, which is removed with its build. Blocks."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _received(fd, cache)
    finally:
        os.close(fd)


def _from_directory(directory: Path, cache: BuildCache) -> BuildContext:
    """A checkout is copied through a confined child, like every other context."""
    archive = cache.root / f"scratch-{os.urandom(6).hex()}"
    with archive.open("w+b") as file:
        archive.unlink()
        diff.write_tree(directory, file)
        file.flush()
        file.seek(0)
        return _received(file.fileno(), cache)


def _received(fd: int, cache: BuildCache) -> BuildContext:
    context = cache.contexts.once()
    try:
        context.receive(fd, Ending())
    except BaseException:
        context.release()
        raise
    return context


__all__ = ["filename_of", "from_archive", "is_archive", "remote_context", "remote_operation"]
