"""Requests that involve registries: push, login, inspection, search, copies."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from wherry.api.context import RequestContext, json_response
from wherry.api.progress import Reporter, platform, registry_credentials, with_progress
from wherry.api.router import Route
from wherry.engine.images.registries import BLOB_MAX
from wherry.errors import InvalidArgument
from wherry.model import digest as digests
from wherry.model import reference
from wherry.model.base import to_builtins
from wherry.model.digest import is_digest
from wherry.wire import filters as wire_filters
from wherry.wire.auth import AuthConfig

SEARCH_FILTERS = frozenset({"is-automated", "is-official", "stars"})


async def push(ctx: RequestContext) -> web.StreamResponse:
    name = reference.parse(ctx.params["name"])
    if name.digest is not None or is_digest(ctx.params["name"]):
        raise InvalidArgument("cannot push a digest reference")
    if tag := ctx.text("tag"):
        name = name.with_tag(tag)
    credentials, chosen = registry_credentials(ctx), platform(ctx)

    async def work(progress: Reporter) -> Sequence[dict[str, Any]]:
        await ctx.engine.images.pushes.push(
            name, platform=chosen, credentials=credentials, progress=progress.on_loop
        )
        return []

    return await with_progress(ctx, work, quiet=False, abandon=True)


async def login(ctx: RequestContext) -> web.Response:
    given = await ctx.optional_json(AuthConfig)
    token = await ctx.engine.images.registries.login(given.credentials())
    return json_response({"Status": "Login Succeeded", "IdentityToken": token})


async def inspect(ctx: RequestContext) -> web.Response:
    """The ``Descriptor`` and ``Platforms`` of Docker's answer; ``raw=1`` adds the document itself."""
    name = reference.parse(ctx.params["name"])
    found = await ctx.engine.images.registries.inspect(name, registry_credentials(ctx))
    answer = {"Descriptor": to_builtins(found.target), "Platforms": to_builtins(found.platforms)}
    if ctx.flag("raw"):
        answer["Document"] = base64.b64encode(found.data).decode()
    return json_response(answer)


async def tags(ctx: RequestContext) -> web.Response:
    name = reference.parse(ctx.params["name"])
    found = await ctx.engine.images.registries.tags(name, registry_credentials(ctx))
    return json_response({"Name": name.familiar_name, "Tags": found})


async def put(ctx: RequestContext) -> web.Response:
    """Put a manifest or an index: the body contains its bytes, ``mediaType`` its media type."""
    name = reference.parse(ctx.params["name"])
    data = await ctx.body()
    stored = await ctx.engine.images.registries.put(
        name, ctx.text("mediaType"), data, registry_credentials(ctx)
    )
    return json_response({"Descriptor": to_builtins(stored)}, status=201)


async def put_blob(ctx: RequestContext) -> web.Response:
    """Put a small blob: the body contains its bytes, ``mediaType`` its media type."""
    name = reference.parse(ctx.params["name"])
    data = await ctx.whole(BLOB_MAX)
    stored = await ctx.engine.images.registries.put_blob(
        name, ctx.text("mediaType"), data, registry_credentials(ctx)
    )
    return json_response({"Descriptor": to_builtins(stored)}, status=201)


async def blob(ctx: RequestContext) -> web.Response:
    """The bytes of a small blob; ``size`` is what a manifest says of it."""
    name, digest = reference.parse(ctx.params["name"]), ctx.text("digest")
    if not is_digest(digest):
        raise InvalidArgument(f"invalid digest {digest[:80]!r}")
    data = await ctx.engine.images.registries.blob(
        name, digests.parse(digest), ctx.integer("size") or 0, registry_credentials(ctx)
    )
    return web.Response(body=data, content_type="application/octet-stream")


async def copy(ctx: RequestContext) -> web.StreamResponse:
    source, target = reference.parse(ctx.text("from")), reference.parse(ctx.text("to"))
    credentials = registry_credentials(ctx)

    async def work(progress: Reporter) -> Sequence[dict[str, Any]]:
        found = await ctx.engine.images.copies.copy(
            source, target, credentials=credentials, progress=progress.on_loop
        )
        return [{"progressDetail": {}, "aux": {"Digest": found.digest, "Size": found.size}}]

    return await with_progress(ctx, work, quiet=False, abandon=True)


def _limit(ctx: RequestContext) -> int:
    try:
        return ctx.integer("limit", 0) or 0
    except InvalidArgument as e:
        raise InvalidArgument(f"invalid limit specified: {e.message}") from e


async def search(ctx: RequestContext) -> web.Response:
    filters = wire_filters.parse(ctx.text("filters"), SEARCH_FILTERS)
    automated = wire_filters.boolean(filters, "is-automated")
    official = wire_filters.boolean(filters, "is-official")
    stars = [_stars(text) for text in filters.get("stars", ())]
    found = await ctx.engine.images.registries.search(
        ctx.text("term"), _limit(ctx), registry_credentials(ctx)
    )
    return json_response(
        [
            {
                "name": one.name,
                "description": one.description,
                "star_count": one.stars,
                "is_official": one.official,
                "is_automated": one.automated,
            }
            for one in found
            if (automated is None or one.automated == automated)
            and (official is None or one.official == official)
            and all(one.stars >= least for least in stars)
        ]
    )


def _stars(text: str) -> int:
    if not text.isdigit():
        raise InvalidArgument(
            f"invalid filter 'stars={text}': strconv.Atoi: parsing \"{text}\": invalid syntax"
        )
    return int(text)


ROUTES: list[Route] = [
    ("POST", "/images/{name:path}/push", push),
    ("GET", "/images/search", search),
    ("POST", "/auth", login),
    ("POST", "/distribution/copy", copy),
    ("GET", "/distribution/{name:path}/json", inspect),
    ("GET", "/distribution/{name:path}/tags", tags),
    ("PUT", "/distribution/{name:path}/manifest", put),
    ("PUT", "/distribution/{name:path}/blob", put_blob),
    ("GET", "/distribution/{name:path}/blob", blob),
]
