"""``/containers``: decode, one engine call, encode."""

from __future__ import annotations

from aiohttp import web

from wherry.api.context import RequestContext, encode, json_response, no_content
from wherry.api.router import Route
from wherry.api.server import begin_stream
from wherry.engine.containers.listing import ListOptions
from wherry.engine.containers.service import CreateRequest
from wherry.engine.live import Exit
from wherry.engine.logs.service import LogOptions
from wherry.errors import InvalidArgument, NotFound, NotImplemented_
from wherry.model.base import convert, to_builtins
from wherry.model.container import ContainerConfig, ContainerUpdate, HostConfig, NetworkingConfig
from wherry.wire import compat, inspection
from wherry.wire import containers as wire
from wherry.wire import filters as wire_filters
from wherry.wire.numbers import uint32
from wherry.wire.times import parse_timestamp

LIST_FILTERS = frozenset(
    {
        "ancestor", "before", "expose", "exited", "health", "id", "isolation", "is-task", "label", "name",
        "network", "publish", "since", "status", "volume",
    }
)  # fmt: skip
PRUNE_FILTERS = frozenset({"until", "label", "label!"})


_EMPTY_OBJECT = 7
"""Bytes. As in Docker, a shorter body counts as missing."""


class CreateBody(ContainerConfig, frozen=True, kw_only=True):
    """``POST /containers/create``: the container's configuration with the host's half inside it."""

    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None


async def list_containers(ctx: RequestContext) -> web.Response:
    limit = ctx.integer("limit", 0) or 0
    filters = wire_filters.parse(ctx.text("filters"), LIST_FILTERS)
    options = ListOptions(
        all=ctx.flag("all"),
        limit=max(limit, 0),
        size=ctx.flag("size"),
        tasks=bool(wire_filters.boolean(filters, "is-task")),
        filters=filters,
    )
    views = await ctx.engine.containers.listing.listed(options)
    return json_response([wire.summary(view, ctx.version) for view in views])


async def create(ctx: RequestContext) -> web.Response:
    body = await ctx.json(CreateBody)
    if body == CreateBody(host_config=body.host_config, networking_config=body.networking_config):
        raise InvalidArgument("config cannot be empty in order to create a container")
    asked = compat.create(
        compat.Create(
            config=convert(to_builtins(body), ContainerConfig),
            host=body.host_config or HostConfig(),
            networking=body.networking_config or NetworkingConfig(),
        ),
        ctx.version,
    )
    request = CreateRequest(
        config=asked.config,
        host=asked.host,
        networking=asked.networking,
        name=ctx.text("name"),
        platform=ctx.text("platform") if ctx.version >= (1, 41) else "",
        readonly_recursive=asked.readonly_recursive,
    )
    made = await ctx.engine.containers.service.create(request)
    return json_response({"Id": made.id, "Warnings": [*made.warnings, *asked.warnings]}, status=201)


async def inspect(ctx: RequestContext) -> web.Response:
    view = await ctx.engine.containers.service.inspect(ctx.params["id"], size=ctx.flag("size"))
    return json_response(inspection.inspect(view, ctx.version))


async def start(ctx: RequestContext) -> web.Response:
    if (ctx.request.content_length or 0) > _EMPTY_OBJECT or ctx.request.headers.get("Transfer-Encoding"):
        raise InvalidArgument(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in "
            "v1.24"
        )
    if ctx.text("checkpoint"):
        raise NotImplemented_(
            "cannot start from a checkpoint: checkpoints, which need CRIU, are not implemented yet"
        )
    await ctx.engine.containers.lifecycle.start(ctx.params["id"], standby=ctx.flag("standby"))
    return no_content()


async def take_over(ctx: RequestContext) -> web.Response:
    """An addition: ``?from=CONTAINER&drain=SECONDS`` (``engine.containers.takeover``)."""
    left = await ctx.engine.containers.takeover.take_over(
        ctx.params["id"], ctx.text("from"), drain=ctx.integer("drain") or 0
    )
    return json_response({"Connections": left})


def _stop_signal(ctx: RequestContext) -> str | None:
    return (ctx.text("signal") or None) if ctx.version >= (1, 42) else None


async def stop(ctx: RequestContext) -> web.Response:
    await ctx.engine.containers.control.stop(
        ctx.params["id"], timeout=ctx.integer("t"), signal_name=_stop_signal(ctx)
    )
    return no_content()


async def restart(ctx: RequestContext) -> web.Response:
    await ctx.engine.containers.control.restart(
        ctx.params["id"], timeout=ctx.integer("t"), signal_name=_stop_signal(ctx)
    )
    return no_content()


async def kill(ctx: RequestContext) -> web.Response:
    wanted = ctx.params["id"]
    try:
        await ctx.engine.containers.control.kill(wanted, ctx.text("signal") or "KILL")
    except (NotFound, InvalidArgument) as e:
        raise type(e)(f"cannot kill container: {wanted}: {e.message}") from e
    return no_content()


async def pause(ctx: RequestContext) -> web.Response:
    await ctx.engine.containers.control.pause(ctx.params["id"])
    return no_content()


async def unpause(ctx: RequestContext) -> web.Response:
    await ctx.engine.containers.control.unpause(ctx.params["id"])
    return no_content()


async def rename(ctx: RequestContext) -> web.Response:
    await ctx.engine.containers.service.rename(ctx.params["id"], ctx.text("name"))
    return no_content()


async def update(ctx: RequestContext) -> web.Response:
    change = await ctx.optional_json(ContainerUpdate)
    warnings = await ctx.engine.containers.update.update(ctx.params["id"], change)
    return json_response({"Warnings": warnings or None})


async def resize(ctx: RequestContext) -> web.Response:
    height, width = terminal_size(ctx)
    ctx.engine.containers.control.resize(ctx.params["id"], height=height, width=width)
    return web.Response(status=200)


def terminal_size(ctx: RequestContext) -> tuple[int, int]:
    """:raises InvalidArgument: height or width is missing, or is not a size that a terminal can have."""
    height, width = uint32(ctx.text("h"), "resize height"), uint32(ctx.text("w"), "resize width")
    return height & 0xFFFF, width & 0xFFFF  # the kernel stores 16 bits of each


async def remove(ctx: RequestContext) -> web.Response:
    await ctx.engine.containers.removal.remove(
        ctx.params["id"], force=ctx.flag("force"), volumes=ctx.flag("v"), link=ctx.flag("link")
    )
    return no_content()


async def remove_link(ctx: RequestContext) -> web.Response:
    """Links are named ``container/alias``; only a link can be removed by such a name."""
    if not ctx.flag("link"):
        raise NotFound("page not found")
    await ctx.engine.containers.removal.remove(
        f"{ctx.params['id']}/{ctx.params['alias']}", force=False, volumes=False, link=True
    )
    return no_content()


async def top(ctx: RequestContext) -> web.Response:
    titles, rows = await ctx.engine.processes.top.top(ctx.params["id"], ctx.text("ps_args"))
    return json_response({"Titles": titles, "Processes": rows})


async def prune(ctx: RequestContext) -> web.Response:
    filters = wire_filters.parse(ctx.text("filters"), PRUNE_FILTERS)
    until = wire_filters.until(filters)
    done = await ctx.engine.upkeep.prune.containers(
        until=until, labels=lambda labels: wire_filters.label_filters_match(filters, labels)
    )
    return json_response({"ContainersDeleted": done.removed or None, "SpaceReclaimed": done.freed})


async def wait(ctx: RequestContext) -> web.StreamResponse:
    """The headers are sent at once: clients start the container only after they know that the wait is
    registered."""
    condition = ctx.text("condition") or "not-running"
    if condition not in ("not-running", "next-exit", "removed"):
        raise InvalidArgument(f'invalid condition: "{condition}"')
    future = ctx.engine.containers.control.wait(ctx.params["id"], condition)
    response = await begin_stream(ctx.request, "application/json")
    how = await future
    await response.write(encode(_wait_body(how)))
    await response.write_eof()
    return response


def _wait_body(how: Exit) -> dict[str, object]:
    if how.error:
        return {"StatusCode": how.code, "Error": {"Message": how.error}}
    return {"StatusCode": how.code}


async def logs(ctx: RequestContext) -> web.StreamResponse:
    tail = ctx.text("tail", "all")
    wanted = ctx.params["id"]
    framed = not ctx.engine.containers.service.find(wanted).record.config.tty
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
    row = ctx.engine.logs.service.check(wanted, options)
    kind = "application/vnd.docker.multiplexed-stream" if framed else "application/vnd.docker.raw-stream"
    if ctx.version < (1, 42):
        kind = "application/vnd.docker.raw-stream"
    response = await begin_stream(ctx.request, kind)
    async for data in ctx.engine.logs.service.stream(row, options):
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
    ("POST", "/containers/{id}/takeover", take_over),
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
