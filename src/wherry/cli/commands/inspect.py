"""``wherry inspect`` and the inspect commands of the groups."""

from __future__ import annotations

from wherry.cli.command import UNLIMITED, Command, Failure
from wherry.cli.console import indented
from wherry.cli.grammar.common import FORMAT, PLATFORM
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, STRING
from wherry.cli.render import gojson, template
from wherry.cli.render.template.structures import Struct
from wherry.client import containers, images, networks, volumes
from wherry.errors import InvalidArgument, NotFound, NotImplemented_, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options
    from wherry.client.api import Api

    Get = Callable[[str], dict[str, Any]]

KNOWN_TYPES = (
    "config",
    "container",
    "image",
    "network",
    "node",
    "plugin",
    "secret",
    "service",
    "task",
    "volume",
)
BAD_TEMPLATE = 64
SEARCHED = ("container", "image", "network", "volume")


def _getter(api: Api, kind: str, options: Options) -> Get:
    if kind == "container":
        return lambda name: _as(
            "ContainerInspectResponse", containers.inspect(api, name, size=options.on("size"))
        )
    if kind == "image":
        platform = options.text("platform") if "platform" in options else ""
        return lambda name: _as("ImageInspect", images.inspect(api, name, platform=platform))
    if kind == "network":
        verbose = options.on("verbose") if "verbose" in options else False
        return lambda name: _as("NetworkInspect", networks.inspect(api, name, verbose=verbose))
    return lambda name: _as("Volume", volumes.inspect(api, name))


def _as(kind: str, value: dict[str, Any]) -> Struct:
    return Struct(kind, value)


def show(ctx: Context, names: list[str], layout: str, get: Get) -> int:
    """Inspect every name and print the found objects, then the errors; the exit code is 1 if
    anything failed."""
    compiled = None
    if layout and layout != "json":
        try:
            compiled = template.compile(layout, strict=True)
        except template.TemplateError as e:
            raise Failure(f"template parsing error: {e}", BAD_TEMPLATE) from e
    found: list[Any] = []
    problems: list[str] = []
    for name in names:
        try:
            found.append(get(name))
        except WherryError as e:
            problems.append(e.message)
    if compiled is not None:
        problems += _templated(ctx, found, compiled)
    elif layout == "json":
        ctx.raw(gojson.compact(found))
    else:
        ctx.raw(gojson.indented(found))
    for problem in problems:
        ctx.complain(indented(problem))
    return 1 if problems else 0


def _templated(ctx: Context, found: list[Any], compiled: template.Template) -> list[str]:
    said = False
    for element in found:
        try:
            ctx.raw(compiled.render(element))
        except template.TemplateFailure as e:
            if not said:
                ctx.say()
            return [f"template parsing error: {e}"]
        said = True
    if not said:
        ctx.say()
    return []


def any_type(ctx: Context, options: Options, args: list[str]) -> int:
    kind = options.text("type")
    if options.given("type") and kind not in KNOWN_TYPES:
        if not kind:
            raise InvalidArgument('type is empty: must be one of "' + '", "'.join(KNOWN_TYPES) + '"')
        raise InvalidArgument(f'unknown type: "{kind}": must be one of "' + '", "'.join(KNOWN_TYPES) + '"')
    if kind and kind not in SEARCHED:
        raise NotImplemented_(f"wherry: 'inspect --type {kind}' is not implemented yet")
    if kind:
        return show(ctx, args, options.text("format"), _getter(ctx.api, kind, options))
    return show(ctx, args, options.text("format"), lambda name: _search(ctx.api, name, options))


def _search(api: Api, name: str, options: Options) -> dict[str, Any]:
    """The first kind of object that has this name."""
    for kind in SEARCHED:
        try:
            return _getter(api, kind, options)(name)
        except NotFound:
            continue
        except InvalidArgument:
            if kind != "image":
                raise
    raise NotFound(f"Error: No such object: {name}")


def _of(kind: str) -> Callable[[Context, Options, list[str]], int]:
    def run(ctx: Context, options: Options, args: list[str]) -> int:
        return show(ctx, args, options.text("format"), _getter(ctx.api, kind, options))

    return run


_SIZE = Flag("size", "s", BOOL, "Display total file sizes")
_SIZE_IF = Flag("size", "s", BOOL, "Display total file sizes if the type is container")
INSPECT = Command(
    "[OPTIONS] NAME|ID [NAME|ID...]",
    any_type,
    (
        FORMAT,
        _SIZE_IF,
        Flag(
            "type",
            "",
            STRING,
            "Only inspect objects of the given type",
            complete="container image network volume",
        ),
    ),
    least=1,
    most=UNLIMITED,
    complete="any",
)
CONTAINER = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    _of("container"),
    (FORMAT, _SIZE),
    least=1,
    most=UNLIMITED,
    complete="container",
)
IMAGE = Command(
    "[OPTIONS] IMAGE [IMAGE...]", _of("image"), (FORMAT, PLATFORM), least=1, most=UNLIMITED, complete="image"
)
VOLUME = Command(
    "[OPTIONS] VOLUME [VOLUME...]", _of("volume"), (FORMAT,), least=1, most=UNLIMITED, complete="volume"
)
NETWORK = Command(
    "[OPTIONS] NETWORK [NETWORK...]",
    _of("network"),
    (FORMAT, Flag("verbose", "v", BOOL, "Verbose output for diagnostics")),
    least=1,
    most=UNLIMITED,
    complete="network",
)
