"""``wherry builder``: the build cache and the history of builds."""

from __future__ import annotations

from wherry.cli.command import Command, Failure, each
from wherry.cli.console import confirm, one_line, safe
from wherry.cli.grammar.common import FORCE_PRUNE, FORMAT_TABLE, NO_TRUNC
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, BYTES, FILTER
from wherry.cli.render import table, units
from wherry.cli.render.rows import fields
from wherry.cli.render.table import Row
from wherry.cli.terminal.progress import Working
from wherry.client import builds, jsonwire, system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options

    Object = dict[str, Any]

_SURE = "Are you sure you want to continue?"


def prune(ctx: Context, options: Options, args: list[str]) -> int:
    everything = options.on("all")
    what = "all build cache" if everything else "all dangling build cache"
    if not options.on("force") and not confirm(f"WARNING! This will remove {what}. {_SURE}"):
        return 0
    with Working("Removing build cache"):
        answer = builds.prune(
            ctx.api,
            options.filters(),
            all=everything,
            reserved_space=options.number("reserved-space") or options.number("keep-storage") or None,
            max_used_space=options.number("max-used-space") or None,
            min_free_space=options.number("min-free-space") or None,
        )
    deleted = answer.get("CachesDeleted") or []
    if deleted:
        ctx.say("Deleted build cache objects:")
        for one in deleted:
            ctx.line(str(one))
        ctx.say()
    ctx.say(f"Total reclaimed space: {units.size(int(answer.get('SpaceReclaimed') or 0), 4)}")
    return 0


class CacheLine(Row):
    TYPE = "formatter.buildCacheContext"
    FIELDS = fields("CacheType CreatedSince Description ID InUse LastUsedSince Shared Size UsageCount")
    HEADERS = {
        "ID": "CACHE ID",
        "CacheType": "CACHE TYPE",
        "Size": "SIZE",
        "CreatedSince": "CREATED",
        "LastUsedSince": "LAST USED",
        "UsageCount": "USAGE",
        "Shared": "SHARED",
        "InUse": "IN USE",
        "Description": "DESCRIPTION",
    }
    TABLE = "\t".join(
        f"{{{{.{name}}}}}"
        for name in "ID CacheType Size CreatedSince LastUsedSince UsageCount Shared Description".split()
    )

    def __init__(self, item: Object, truncate: bool) -> None:
        self.item, self._truncate = item, truncate

    def get_id(self) -> str:
        text = str(self.item.get("ID", ""))
        return text[:12] if self._truncate else text

    def get_cachetype(self) -> str:
        return str(self.item.get("Type", ""))

    def get_size(self) -> str:
        return units.size(int(self.item.get("Size") or 0))

    def get_createdsince(self) -> str:
        return units.ago(units.parse_time(str(self.item.get("CreatedAt") or "")))

    def get_lastusedsince(self) -> str:
        return units.ago(units.parse_time(str(self.item.get("LastUsedAt") or "")))

    def get_usagecount(self) -> str:
        return str(self.item.get("UsageCount") or 0)

    def get_shared(self) -> str:
        return "true" if self.item.get("Shared") else "false"

    def get_inuse(self) -> str:
        return "true" if self.item.get("InUse") else "false"

    def get_description(self) -> str:
        text = str(self.item.get("Description", ""))
        return safe(text[:59] + "…" if self._truncate and len(text) > 60 else text)


def du(ctx: Context, options: Options, args: list[str]) -> int:
    answer = system.disk_usage(ctx.api, verbose=True)
    items = (answer.get("BuildCacheUsage") or {}).get("Items") or answer.get("BuildCache") or []
    rows = [CacheLine(one, not options.on("no-trunc")) for one in items]
    layout = options.text("format") or "table"
    table.show(ctx, rows, layout, default=CacheLine.TABLE, headers=CacheLine.HEADERS)
    return 0


class BuildLine(Row):
    TYPE = "formatter.buildContext"
    FIELDS = fields("Cached Created Duration ID Image Name Status Steps")
    HEADERS = {
        "ID": "BUILD ID",
        "Name": "NAME",
        "Status": "STATUS",
        "Created": "CREATED AT",
        "Duration": "DURATION",
        "Steps": "STEPS",
        "Cached": "CACHED",
        "Image": "IMAGE",
    }
    TABLE = "{{.ID}}\t{{.Name}}\t{{.Status}}\t{{.Created}}\t{{.Duration}}\t{{.Steps}}\t{{.Cached}}"

    def __init__(self, item: Object, truncate: bool) -> None:
        self.item, self._truncate = item, truncate

    def get_id(self) -> str:
        text = str(self.item.get("ID", ""))
        return text[:12] if self._truncate else text

    def get_name(self) -> str:
        tags = self.item.get("Tags") or []
        return safe(str(tags[0] if tags else self.item.get("Dockerfile", "")))

    def get_status(self) -> str:
        return safe(str(self.item.get("Status", "")))

    def get_created(self) -> str:
        return units.ago(units.parse_time(str(self.item.get("StartedAt") or "")))

    def get_duration(self) -> str:
        nanoseconds = int(self.item.get("Duration") or 0)
        return f"{nanoseconds / 1e9:.1f}s"

    def get_steps(self) -> str:
        return str(len(self.item.get("Steps") or ()))

    def get_cached(self) -> str:
        return str(sum(1 for s in self.item.get("Steps") or () if s.get("Status") == "cached"))

    def get_image(self) -> str:
        return safe(str(self.item.get("Image", "")))


def history(ctx: Context, options: Options, args: list[str]) -> int:
    rows = [BuildLine(one, not options.on("no-trunc")) for one in builds.history(ctx.api)]
    layout = options.text("format") or "table"
    table.show(ctx, rows, layout, default=BuildLine.TABLE, headers=BuildLine.HEADERS)
    return 0


def show(ctx: Context, options: Options, args: list[str]) -> int:
    """Print one build and its steps."""
    wanted = args[0] if args else _last(ctx)
    one = builds.history_of(ctx.api, wanted)
    if options.text("format") == "json":
        ctx.raw(jsonwire.indented(one, "    "))
        return 0
    row = BuildLine(one, truncate=False)
    lines = [
        ("Build", row.get_id()),
        ("Status", row.get_status()),
        ("Image", row.get_image()),
        ("Tags", safe(", ".join(map(str, one.get("Tags") or ())))),
        ("Dockerfile", safe(str(one.get("Dockerfile", "")))),
        ("Target", safe(str(one.get("Target", "")))),
        ("Platform", safe(str(one.get("Platform", "")))),
        ("Started", row.get_created()),
        ("Duration", row.get_duration()),
    ]
    for title, value in lines:
        if value:
            ctx.line(f"{title + ':':<12}{value}")
    ctx.say()
    cells = ["\t".join(("STEP", "STATUS", "DURATION"))]
    for step in one.get("Steps") or ():
        begun, ended = int(step.get("Started") or 0), int(step.get("Finished") or 0)
        took = f"{(ended - begun) / 1e9:.1f}s" if begun and ended else ""
        name = one_line(str(step.get("Name", "")).partition("\n")[0])
        cells.append("\t".join((name[:100], one_line(str(step.get("Status", ""))), took)))
    ctx.write(table.align(cells))
    return 0


def _last(ctx: Context) -> str:
    found = builds.history(ctx.api)
    if not found:
        raise Failure("No builds yet")
    return str(found[0]["ID"])


def forget(ctx: Context, options: Options, args: list[str]) -> int:
    if options.on("all"):
        args = [str(one["ID"]) for one in builds.history(ctx.api)]

    def one(name: str) -> str:
        builds.forget(ctx.api, name)
        return name

    return each(ctx, args, one)


PRUNE = Command(
    "[OPTIONS]",
    prune,
    (
        Flag("all", "a", BOOL, "Remove all unused build cache, not just dangling ones"),
        Flag("filter", "", FILTER, 'Provide filter values (e.g. "until=24h")'),
        FORCE_PRUNE,
        Flag("keep-storage", "", BYTES, "Amount of disk space to keep for cache", hidden=True),
        Flag("max-used-space", "", BYTES, "Most disk space that the cache may have afterwards"),
        Flag("min-free-space", "", BYTES, "Free disk space that there should be afterwards"),
        Flag("reserved-space", "", BYTES, "Amount of disk space always allowed to keep for cache"),
    ),
)
DU = Command("[OPTIONS]", du, (FORMAT_TABLE, NO_TRUNC))
HISTORY = Command("[OPTIONS]", history, (FORMAT_TABLE, NO_TRUNC))
SHOW = Command("[OPTIONS] [BUILD]", show, (FORMAT_TABLE,), most=1)
FORGET = Command(
    "[OPTIONS] [BUILD...]",
    forget,
    (Flag("all", "a", BOOL, "Forget all builds"),),
    most=-1,
)
