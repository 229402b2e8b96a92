"""Send a build to the daemon: first the missing files of the contexts, then the request."""

from __future__ import annotations

import os

from wherry.cli.building import flags
from wherry.cli.building.source import inside, local_context
from wherry.cli.command import Failure
from wherry.client import builds
from wherry.client.files import read_file
from wherry.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from wherry.cli.building.request import Query
    from wherry.cli.building.source import BuildSource
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options
    from wherry.client.buildcontext import LocalContext


def send(
    ctx: Context,
    options: Options,
    query: Query,
    source: BuildSource,
    local: Mapping[str, str],
    secrets: Mapping[str, bytes],
    agents: Mapping[str, str],
) -> Iterator[Any]:
    from wherry.client import credentials

    headers = credentials.headers_for_all(ctx.config_dir, _images(source, options))
    if source.archive is not None:
        if secrets or local or agents:
            raise Failure("ERROR: secrets, agents and named contexts need a context that is a directory")
        archive = source.archive
        return builds.build(ctx.api, query, archive=_compressed(archive, options), headers=headers)
    try:
        session = builds.open_session(ctx.api, secrets, agents, source.text)
    except NotFound:
        return _send_whole(ctx, options, query, source, local, secrets, headers)
    try:
        if source.directory:
            _sync(ctx, session, "", local_context(source.directory, inside(source)))
        for name, directory in local.items():
            _sync(ctx, session, name, local_context(directory, ""))
        return builds.build(ctx.api, {**query, "session": session}, archive=None, headers=headers)
    except BaseException:
        try:
            builds.close_session(ctx.api, session)
        except Exception:
            ctx.close()
        raise


def _images(source: BuildSource, options: Options) -> list[str]:
    """The names of images that the build may pull, as far as they are known here."""
    import re

    from wherry.model import reference

    text = source.text or b""
    if not text and source.directory:
        text = read_file(os.path.join(source.directory, source.dockerfile))
    found = re.findall(
        r"^[ \t]*(?:FROM|COPY)[ \t]+(?:--(?:from=)?\S+[ \t]+)*(\S+)",
        text.decode("utf-8", "replace"),
        re.MULTILINE | re.IGNORECASE,
    )
    caches = [
        one.get("ref", "")
        for name in ("cache-from", "cache-to")
        for one in flags.caches(options.many(name), name)
    ]
    names = []
    for name in [*found, *options.many("tag"), *caches]:
        try:
            reference.parse(name)
        except InvalidArgument:
            continue
        names.append(name)
    return names


def _sync(ctx: Context, session: str, name: str, context: LocalContext) -> None:
    context.scan()
    need = builds.compare(ctx.api, session, name, context.key, context.manifest())
    if need is not None:
        builds.send(ctx.api, session, name, context.archive(need))


def _send_whole(
    ctx: Context,
    options: Options,
    query: Query,
    source: BuildSource,
    local: Mapping[str, str],
    secrets: Mapping[str, bytes],
    headers: Mapping[str, str],
) -> Iterator[Any]:
    """For a daemon that does not keep contexts (Docker's)."""
    if secrets or local or source.text is not None:
        raise Failure("ERROR: secrets, named contexts and a Dockerfile from elsewhere need wherry's daemon")
    if not source.directory:
        return builds.build(ctx.api, query, archive=None, headers=headers)
    context = local_context(source.directory, source.dockerfile)
    context.scan()
    return builds.build(ctx.api, query, archive=_compressed(context.archive(), options), headers=headers)


def _compressed(archive: Iterable[bytes], options: Options) -> Iterator[bytes]:
    if not options.on("compress"):
        yield from archive
        return
    import zlib

    compressor = zlib.compressobj(wbits=31)
    for piece in archive:
        if out := compressor.compress(piece):
            yield out
    yield compressor.flush()
