"""``wherry system df``."""

from __future__ import annotations

from wherry.cli.command import Command, Failure
from wherry.cli.console import one_line
from wherry.cli.daemons.several import ask
from wherry.cli.grammar.common import FORMAT_TABLE
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL
from wherry.cli.render import table, units
from wherry.cli.render.rows import ContainerLine, VolumeLine, fields, image_rows
from wherry.cli.render.table import Row
from wherry.client import system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.daemons.several import Answers, DaemonAnswer
    from wherry.cli.grammar.flags import Options

    Object = dict[str, Any]

CONTAINERS_TABLE = "\t".join(
    f"{{{{.{n}}}}}"
    for n in ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names")
)
IMAGES_TABLE = (
    "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}"
    "\t{{.Containers}}"
)
CACHE_COLUMNS = ("CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED")
VOLUMES_TABLE = "{{.Name}}\t{{.Links}}\t{{.Size}}"


class KindUsage:
    """The usage of one kind of object: their number, how many are in use, total bytes and
    reclaimable bytes."""

    __slots__ = ("active", "items", "reclaimable", "size", "title", "total")

    def __init__(
        self, title: str, total: int, active: int, size: int, reclaimable: int, items: list[Object]
    ) -> None:
        self.title, self.total, self.active = title, total, active
        self.size, self.reclaimable, self.items = size, reclaimable, items


class DiskUsageLine(Row):
    TYPE = "formatter.diskUsageContext"
    FIELDS = fields("Active Reclaimable Size TotalCount Type")
    HEADERS = {
        "Type": "TYPE",
        "TotalCount": "TOTAL",
        "Active": "ACTIVE",
        "Size": "SIZE",
        "Reclaimable": "RECLAIMABLE",
    }
    TABLE = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"

    def __init__(self, usage: KindUsage) -> None:
        self.u = usage

    def get_type(self) -> str:
        return self.u.title

    def get_totalcount(self) -> str:
        return str(self.u.total)

    def get_active(self) -> str:
        return str(self.u.active)

    def get_size(self) -> str:
        return units.size(self.u.size, 4)

    def get_reclaimable(self) -> str:
        shown = units.size(self.u.reclaimable, 4)
        if self.u.size <= 0 or self.u.title == "Build Cache":
            return shown
        return f"{shown} ({self.u.reclaimable * 100 // self.u.size}%)"


def usages(answer: Object) -> list[KindUsage]:
    """The four kinds, from either form of the answer (API 1.52 has the sums, older versions list items)."""
    titles = ("Images", "Containers", "Local Volumes", "Build Cache")
    members = ("ImageUsage", "ContainerUsage", "VolumeUsage", "BuildCacheUsage")
    if any(member in answer for member in members):
        return [_counted(title, answer.get(m) or {}) for title, m in zip(titles, members, strict=True)]
    images, containers = answer.get("Images") or [], answer.get("Containers") or []
    volumes, cache = answer.get("Volumes") or [], answer.get("BuildCache") or []
    return [
        _of_images(images, int(answer.get("LayersSize") or 0)),
        _of_containers(containers),
        _of_volumes(volumes),
        _of_cache(cache),
    ]


def _counted(title: str, usage: Object) -> KindUsage:
    total, active, size, free = (
        int(usage.get(key) or 0) for key in ("TotalCount", "ActiveCount", "TotalSize", "Reclaimable")
    )
    return KindUsage(title, total, active, size, free, usage.get("Items") or [])


def _of_images(images: list[Object], layers: int) -> KindUsage:
    active = [i for i in images if int(i.get("Containers") or 0) > 0]
    used = sum(
        int(i.get("Size") or 0) - int(i.get("SharedSize") or 0)
        for i in active
        if int(i.get("Size") or -1) >= 0
    )
    return KindUsage("Images", len(images), len(active), layers, max(0, layers - used), images)


def _of_containers(containers: list[Object]) -> KindUsage:
    sizes = [(int(c.get("SizeRw") or 0), _is_active(str(c.get("State", "")))) for c in containers]
    whole, free = sum(size for size, _ in sizes), sum(size for size, active in sizes if not active)
    return KindUsage(
        "Containers", len(containers), sum(active for _, active in sizes), whole, free, containers
    )


def _is_active(state: str) -> bool:
    return state in ("running", "paused", "restarting")


def _of_volumes(volumes: list[Object]) -> KindUsage:
    used = [(v, v.get("UsageData") or {}) for v in volumes]
    active = sum(int(u.get("RefCount") or 0) > 0 for _, u in used)
    whole = sum(max(0, int(u.get("Size") or 0)) for _, u in used)
    free = sum(max(0, int(u.get("Size") or 0)) for _, u in used if int(u.get("RefCount") or 0) == 0)
    return KindUsage("Local Volumes", len(volumes), active, whole, free, volumes)


def _of_cache(cache: list[Object]) -> KindUsage:
    sizes = [(int(c.get("Size") or 0), bool(c.get("InUse")), bool(c.get("Shared"))) for c in cache]
    whole = sum(size for size, _, shared in sizes if not shared)
    free = sum(size for size, in_use, shared in sizes if not in_use and not shared)
    return KindUsage("Build Cache", len(cache), sum(used for _, used, _ in sizes), whole, free, cache)


def run(ctx: Context, options: Options, args: list[str]) -> int:
    layout, verbose = options.text("format") or "table", options.on("verbose")
    if verbose and layout not in ("table", "json"):
        raise Failure("a custom format cannot be used with --verbose")

    def question(one: Context) -> list[Any]:
        found: list[Any] = list(usages(system.disk_usage(one.api, verbose=verbose)))
        return [*found, system.on_disk(one.api)] if verbose else found

    answers = ask(ctx, question)
    if not verbose:
        rows = [DiskUsageLine(usage).of(answer) for answer in answers for usage in answer.value]
        table.show(ctx, rows, layout, default=DiskUsageLine.TABLE, headers=DiskUsageLine.HEADERS)
    elif layout == "json":
        for answer in answers:
            _as_json(ctx, answer)
    else:
        _as_tables(ctx, answers)
    return answers.finish(ctx)


def _detail_rows(answer: DaemonAnswer) -> tuple[list[Row], list[Row], list[Row]]:
    images, containers, volumes, *_ = answer.value
    return (
        [row.of(answer) for row in image_rows(images.items, digests=False, truncate=True)],
        [ContainerLine({**c, "SizeRootFs": 0}).of(answer) for c in containers.items],
        [VolumeLine(v).of(answer) for v in volumes.items],
    )


def _as_json(ctx: Context, answer: DaemonAnswer) -> None:
    from wherry.cli.render import gojson

    images, containers, volumes = _detail_rows(answer)
    whose = {"Context": answer.name} if answer.several else {}
    disk = {"OnDisk": answer.value[4]} if answer.value[4] else {}
    ctx.raw(
        gojson.compact(
            {
                **whose,
                "Images": images,
                "Containers": containers,
                "Volumes": volumes,
                "BuildCache": [],
                **disk,
            }
        )
    )


def _as_tables(ctx: Context, answers: Answers) -> None:
    images: list[Row] = []
    containers: list[Row] = []
    volumes: list[Row] = []
    for answer in answers:
        for rows, more in zip((images, containers, volumes), _detail_rows(answer), strict=True):
            rows += more
    sections: tuple[tuple[str, list[Row], str, dict[str, str]], ...] = (
        ("Images space usage:", images, IMAGES_TABLE, _IMAGE_HEADERS),
        ("Containers space usage:", containers, CONTAINERS_TABLE, ContainerLine.HEADERS),
        ("Local Volumes space usage:", volumes, VOLUMES_TABLE, VolumeLine.HEADERS),
    )
    for index, (title, rows, layout, headers) in enumerate(sections):
        ctx.write(("\n" if index else "") + f"{title}\n\n")
        table.show(ctx, rows, "table", default=layout, headers=headers)
    for answer in answers:
        cache: KindUsage = answer.value[3]
        whose = f" of {answer.name}" if answer.several else ""
        ctx.say(f"\nBuild cache usage{one_line(whose)}: {units.size(cache.size, 4)}\n")
        ctx.write(table.align(["\t".join(CACHE_COLUMNS), *map(_cache_line, cache.items)]))
    for answer in answers:
        if disk := answer.value[4]:
            whose = f" of {answer.name}" if answer.several else ""
            ctx.say(f"\nOn disk{one_line(whose)}: {units.size(disk['Total'], 4)}\n")
            lines = [
                f"{one_line(str(part['What']))}\t{units.size(int(part['Size']))}" for part in disk["Parts"]
            ]
            ctx.write(table.align(["WHAT\tSIZE", *lines]))


def _cache_line(item: Object) -> str:
    used = str(item.get("LastUsedAt") or "")
    cells = (
        str(item.get("ID", ""))[:12],
        str(item.get("Type", "")),
        units.size(int(item.get("Size") or 0)),
        units.ago(units.parse_time(str(item.get("CreatedAt") or ""))),
        units.ago(units.parse_time(used)) if used else "",
        str(item.get("UsageCount", 0)),
        "true" if item.get("Shared") else "false",
    )
    return "\t".join(map(one_line, cells))


_IMAGE_HEADERS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "Size": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "Containers": "CONTAINERS",
}
DF = Command(
    "[OPTIONS]",
    run,
    (FORMAT_TABLE, Flag("verbose", "v", BOOL, "Show detailed information on space usage")),
    several=True,
)
