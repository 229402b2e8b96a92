"""``/containers``: decode, one engine call, encode."""

from __future__ import annotations

import msgspec
from aiohttp import web

from wherry.api.context import Context, json_response, no_content
from wherry.api.router import Route
from wherry.api.server import begin_stream
from wherry.engine.containers import CreateRequest
from wherry.engine.listing import ListOptions
from wherry.engine.live import Exit
from wherry.engine.logs import LogOptions
from wherry.errors import InvalidArgument, NotFound, NotImplemented_
from wherry.model.base import convert, to_builtins
from wherry.model.container import ContainerConfig, ContainerUpdate, HostConfig, NetworkingConfig
from wherry.wire import containers as wire
from wherry.wire import filters as wire_filters
from wherry.wire.times import parse_timestamp

LIST_FILTERS = frozenset(
    {
        "ancestor", "before", "expose", "exited", "health", "id", "isolation", "is-task", "label", "name",
        "network", "publish", "since", "status", "volume",
    }
)  # fmt: skip
PRUNE_FILTERS = frozenset({"until", "label", "label!"})


class _CreateBody(ContainerConfig, frozen=True, kw_only=True):
    """``POST /containers/create``: the container's configuration with the host's half inside it."""

    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None


async def list_containers(ctx: Context) -> web.Response:
    limit = ctx.integer("limit", 0) or 0
    options = ListOptions(
        all=ctx.flag("all"),
        limit=max(limit, 0),
        size=ctx.flag("size"),
        filters=wire_filters.parse(ctx.text("filters"), LIST_FILTERS),
    )
    return json_response([wire.summary(view) for view in ctx.services.listing.select(options)])


async def create(ctx: Context) -> web.Response:
    body = await ctx.json(_CreateBody)
    request = CreateRequest(
        config=convert(to_builtins(body), ContainerConfig),
        host=body.host_config or HostConfig(),
        networking=body.networking_config or NetworkingConfig(),
        name=ctx.text("name"),
        platform=ctx.text("platform"),
    )
    made = await ctx.services.containers.create(request)
    return json_response({"Id": made.id, "Warnings": made.warnings}, status=201)


async def inspect(ctx: Context) -> web.Response:
    view = ctx.services.containers.inspect(ctx.params["id"], size=ctx.flag("size"))
    return json_response(wire.inspect(view, ctx.version))


async def start(ctx: Context) -> web.Response:
    if ctx.text("checkpoint"):
        raise NotImplemented_(
            "cannot start from a checkpoint: checkpoints, which need CRIU, are not implemented yet"
        )
    await ctx.services.lifecycle.start(ctx.params["id"])
    return no_content()


async def stop(ctx: Context) -> web.Response:
    await ctx.services.control.stop(
        ctx.params["id"], timeout=ctx.integer("t"), signal_name=ctx.text("signal") or None
    )
    return no_content()


async def restart(ctx: Context) -> web.Response:
    await ctx.services.control.restart(
        ctx.params["id"], timeout=ctx.integer("t"), signal_name=ctx.text("signal") or None
    )
    return no_content()


async def kill(ctx: Context) -> web.Response:
    await ctx.services.control.kill(ctx.params["id"], ctx.text("signal") or "KILL")
    return no_content()


async def pause(ctx: Context) -> web.Response:
    await ctx.services.control.pause(ctx.params["id"])
    return no_content()


async def unpause(ctx: Context) -> web.Response:
    await ctx.services.control.unpause(ctx.params["id"])
    return no_content()


async def rename(ctx: Context) -> web.Response:
    await ctx.services.containers.rename(ctx.params["id"], ctx.text("name"))
    return no_content()


async def update(ctx: Context) -> web.Response:
    change = await ctx.json(ContainerUpdate)
    warnings = await ctx.services.update.update(ctx.params["id"], change)
    return json_response({"Warnings": warnings or None})


async def resize(ctx: Context) -> web.Response:
    height, width = terminal_size(ctx)
    ctx.services.control.resize(ctx.params["id"], height=height, width=width)
    return web.Response(status=200)


def terminal_size(ctx: Context) -> tuple[int, int]:
    """:raises InvalidArgument: not two numbers that a terminal can have."""
    height, width = ctx.integer("h"), ctx.integer("w")
    if height is None or width is None or not (0 <= height <= 65535 and 0 <= width <= 65535):
        raise InvalidArgument("invalid terminal size: h and w must be from 0 to 65535")
    return height, width


async def remove(ctx: Context) -> web.Response:
    await ctx.services.removal.remove(
        ctx.params["id"], force=ctx.flag("force"), volumes=ctx.flag("v"), link=ctx.flag("link")
    )
    return no_content()


async def remove_link(ctx: Context) -> web.Response:
    """A link is named ``container/alias``; nothing else below a container is removed by that name."""
    if not ctx.flag("link"):
        raise NotFound("page not found")
    await ctx.services.removal.remove(
        f"{ctx.params['id']}/{ctx.params['alias']}", force=False, volumes=False, link=True
    )
    return no_content()


async def top(ctx: Context) -> web.Response:
    titles, rows = await ctx.services.top.top(ctx.params["id"], ctx.text("ps_args"))
    return json_response({"Titles": titles, "Processes": rows})


async def prune(ctx: Context) -> web.Response:
    filters = wire_filters.parse(ctx.text("filters"), PRUNE_FILTERS)
    until = parse_timestamp(filters["until"][0]) if "until" in filters else None
    done = await ctx.services.prune.containers(
        until=until, labels=lambda labels: wire_filters.label_filters_match(filters, labels)
    )
    return json_response({"ContainersDeleted": done.removed or None, "SpaceReclaimed": done.freed})


async def wait(ctx: Context) -> web.StreamResponse:
    """Headers go out at once: clients start the container only when they know that the wait stands."""
    condition = ctx.text("condition") or "not-running"
    if condition not in ("not-running", "next-exit", "removed"):
        raise InvalidArgument(f'invalid condition: "{condition}"')
    future = ctx.services.control.wait(ctx.params["id"], condition)
    response = await begin_stream(ctx.request, "application/json")
    how = await future
    await response.write(msgspec.json.encode(_wait_body(how)) + b"\n")
    await response.write_eof()
    return response


def _wait_body(how: Exit) -> dict[str, object]:
    if how.error:
        return {"StatusCode": how.code, "Error": {"Message": how.error}}
    return {"StatusCode": how.code}


async def logs(ctx: Context) -> web.StreamResponse:
    tail = ctx.text("tail", "all")
    wanted = ctx.params["id"]
    framed = not ctx.services.containers.find(wanted).record.config.tty
    options = LogOptions(
        stdout=ctx.flag("stdout"),
        stderr=ctx.flag("stderr"),
        since=parse_timestamp(ctx.text("since")),
        until=parse_timestamp(ctx.text("until")),
        tail=int(tail) if tail.isascii() and tail.isdigit() and len(tail) < 10 else None,
        follow=ctx.flag("follow"),
        timestamps=ctx.flag("timestamps"),
        details=ctx.flag("details"),
        framed=framed,
    )
    row = ctx.services.logs.check(wanted, options)
    kind = "application/vnd.docker.multiplexed-stream" if framed else "application/vnd.docker.raw-stream"
    if ctx.version < (1, 42):
        kind = "application/vnd.docker.raw-stream"
    response = await begin_stream(ctx.request, kind)
    async for data in ctx.services.logs.stream(row, options):
        await response.write(data)
    await response.write_eof()
    return response


ROUTES: list[Route] = [
    ("GET", "/containers/json", list_containers),
    ("POST", "/containers/create", create),
    ("POST", "/containers/prune", prune),
    ("GET", "/containers/{id}/json", inspect),
    ("GET", "/containers/{id}/top", top),
    ("GET", "/containers/{id}/logs", logs),
    ("POST", "/containers/{id}/start", start),
    ("POST", "/containers/{id}/stop", stop),
    ("POST", "/containers/{id}/restart", restart),
    ("POST", "/containers/{id}/kill", kill),
    ("POST", "/containers/{id}/pause", pause),
    ("POST", "/containers/{id}/unpause", unpause),
    ("POST", "/containers/{id}/rename", rename),
    ("POST", "/containers/{id}/update", update),
    ("POST", "/containers/{id}/resize", resize),
    ("POST", "/containers/{id}/wait", wait),
    ("DELETE", "/containers/{id}", remove),
    ("DELETE", "/containers/{id}/{alias}", remove_link),
]
