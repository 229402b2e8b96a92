"""``wherry pull|push|search`` and ``image copy``: images from and to registries."""

from __future__ import annotations

from wherry.cli.command import Command, Failure
from wherry.cli.grammar.common import FILTERS, FORMAT_TABLE, NO_TRUNC, PLATFORM
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, INT, STRING
from wherry.cli.render import table, units
from wherry.cli.render.table import Row
from wherry.cli.terminal.progress import show
from wherry.client import credentials, images, registries
from wherry.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options
    from wherry.model.reference import Reference


def _named(ctx: Context, options: Options, text: str) -> Reference:
    """A name with its tag; without one with ``--all-tags``."""
    from wherry.model import reference

    name = reference.parse(text)
    if options.on("all-tags"):
        if name.tag or name.digest:
            raise Failure("tag can't be used with --all-tags/-a")
        return name
    if not (name.tag or name.digest):
        name = name.with_default_tag()
        if not options.on("quiet"):
            ctx.say(f"Using default tag: {name.tag}")
    return name


def pull(ctx: Context, options: Options, args: list[str]) -> int:
    import os
    import sys

    name = _named(ctx, options, args[0])
    sys.stdout.flush()
    stream = images.pull(
        ctx.api,
        name.familiar_name,
        name.digest or name.tag or "",
        platform=options.text("platform") or os.environ.get("DOCKER_DEFAULT_PLATFORM", ""),
        headers=credentials.header_for(ctx.config_dir, args[0]),
    )
    show(stream, quiet=options.on("quiet"))
    ctx.say(str(name))
    return 0


def push(ctx: Context, options: Options, args: list[str]) -> int:
    import sys

    if args[0].startswith("ssh://"):
        return _push_to_host(ctx, options, args[0])
    name = _named(ctx, options, args[0])
    if name.digest is not None:
        raise Failure("cannot push a digest reference")
    sys.stdout.flush()
    stream = registries.push(
        ctx.api,
        name.familiar_name,
        name.tag or "",
        platform=options.text("platform"),
        headers=credentials.header_for(ctx.config_dir, args[0]),
    )
    aux = show(stream, quiet=options.on("quiet"))
    for value in aux:
        if isinstance(value, dict) and value.get("manifestPushedInsteadOfIndex"):
            ctx.complain(
                "Not all platforms of the image are here: the manifest of the one that is was pushed "
                "instead of the index"
            )
    if options.on("quiet"):
        ctx.say(str(name))
    return 0


def _push_to_host(ctx: Context, options: Options, url: str) -> int:
    """Send an image to the daemon of another host; only its name if that daemon has it already."""
    from wherry.cli.terminal.progress import Working
    from wherry.client import jsonwire
    from wherry.client.api import Api
    from wherry.client.endpoint import DaemonEndpoint
    from wherry.model import reference

    if options.on("all-tags"):
        raise Failure("--all-tags cannot be used with ssh://: name the images")
    host, _, text = url.removeprefix("ssh://").partition("/")
    if not host or not text:
        raise Failure(f"invalid target {url!r}: expected ssh://[USER@]HOST[:PORT]/NAME[:TAG]")
    name = reference.parse(text).with_default_tag()
    shown, quiet = name.familiar(), options.on("quiet")
    platform = options.text("platform")
    identifier = str(images.inspect(ctx.api, shown, platform=platform)["Id"])
    with Api(DaemonEndpoint(f"ssh://{host}")) as there:
        try:
            known = str(images.inspect(there, identifier, platform=platform)["Id"]) == identifier
        except NotFound:
            known = False
        if known:
            images.tag(there, identifier, name.familiar_name, name.tag or "")
            ctx.say(f"{shown} is at {host} already")
            return 0
        archive = images.save(ctx.api, [shown], platform=platform)
        with Working("Sending", quiet=quiet) as working:
            response = images.load(there, working.over(iter(archive)), quiet=True, platform=platform)
        for _ in jsonwire.messages(response):
            continue  # an error in the stream is raised
    ctx.say(identifier if quiet else f"Sent {shown} ({identifier}) to {host}")
    return 0


def copy(ctx: Context, options: Options, args: list[str]) -> int:
    stream = registries.copy(
        ctx.api, args[0], args[1], headers=credentials.headers_for_all(ctx.config_dir, args)
    )
    aux = show(stream, quiet=options.on("quiet"))
    if options.on("quiet"):
        for value in aux:
            if isinstance(value, dict) and value.get("Digest"):
                ctx.line(str(value["Digest"]))
    return 0


class SearchLine(Row):
    """One repository of ``/images/search``."""

    TYPE = "formatter.SearchContext"
    FIELDS = ("Description", "IsOfficial", "Name", "StarCount")
    HEADERS = {
        "Name": "NAME",
        "Description": "DESCRIPTION",
        "StarCount": "STARS",
        "IsOfficial": "OFFICIAL",
    }
    TABLE = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}"

    def __init__(self, found: dict[str, Any], *, truncate: bool) -> None:
        self.s, self.truncate = found, truncate

    def get_name(self) -> str:
        return str(self.s.get("name") or "")

    def get_description(self) -> str:
        text = " ".join(str(self.s.get("description") or "").split())
        return units.ellipsis(text, 45) if self.truncate else text

    def get_starcount(self) -> str:
        return str(self.s.get("star_count") or 0)

    def get_isofficial(self) -> str:
        return "[OK]" if self.s.get("is_official") else ""


def search(ctx: Context, options: Options, args: list[str]) -> int:
    term = args[0]
    if options.on("tags"):
        return _list_tags(ctx, term)
    layout = options.text("format") or "table"
    table.compile_format(table.split_format(layout, SearchLine.TABLE)[1])
    host = term.partition("/")[0] if "/" in term else ""
    is_host = "." in host or ":" in host or host == "localhost"
    auth = credentials.CredentialStore(ctx.config_dir).get(credentials.key_for(host if is_host else ""))
    found = registries.search(
        ctx.api,
        term,
        limit=options.number("limit"),
        given=options.filters(),
        headers={"X-Registry-Auth": auth.header} if auth else {},
    )
    found.sort(key=lambda one: -int(one.get("star_count") or 0))
    truncate = not options.on("no-trunc")
    rows = [SearchLine(one, truncate=truncate) for one in found]
    table.show(ctx, rows, layout, default=SearchLine.TABLE, headers=SearchLine.HEADERS)
    return 0


def _list_tags(ctx: Context, name: str) -> int:
    for tag in registries.tags(ctx.api, name, headers=credentials.header_for(ctx.config_dir, name)):
        ctx.say(tag)
    return 0


_QUIET = Flag("quiet", "q", BOOL, "Suppress verbose output")
PULL = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    pull,
    (Flag("all-tags", "a", BOOL, "Download all tagged images in the repository"), PLATFORM, _QUIET),
    least=1,
    most=1,
    complete="image none",
)
PUSH = Command(
    "[OPTIONS] NAME[:TAG]",
    push,
    (
        Flag("all-tags", "a", BOOL, "Push all tags of an image to the repository"),
        Flag("platform", "", STRING, 'Push only the variant for this platform, "os[/arch[/variant]]"'),
        _QUIET,
    ),
    least=1,
    most=1,
    complete="image none",
    description="Send an image to its registry, or with ssh://[USER@]HOST/NAME to the wherry of another host",
)
COPY = Command(
    "[OPTIONS] SOURCE[:TAG|@DIGEST] TARGET[:TAG]",
    copy,
    (_QUIET,),
    least=2,
    most=2,
    complete="image image none",
    description="Copy an image from registry to registry, all platforms, without unpacking it here",
)
SEARCH = Command(
    "[OPTIONS] TERM",
    search,
    (
        FILTERS,
        FORMAT_TABLE,
        Flag("limit", "", INT, "Max number of search results"),
        NO_TRUNC,
        Flag("tags", "", BOOL, "List the tags of the repository TERM instead"),
    ),
    least=1,
    most=1,
)
