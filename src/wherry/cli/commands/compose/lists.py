"""``wherry compose ps|ls|images|volumes|version``: tables."""

from __future__ import annotations

from wherry.cli.command import UNLIMITED, Command, Failure
from wherry.cli.composing.flags import DRY_RUN
from wherry.cli.composing.session import ComposeSession
from wherry.cli.grammar.common import FORMAT_TABLE, NO_TRUNC
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, FILTER, LIST, STRING
from wherry.cli.render import table, units
from wherry.cli.render.rows import ContainerLine, fields
from wherry.cli.render.table import Row
from wherry.client import containers, images, jsonwire, volumes
from wherry.compose import labels, state, trash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options
    from wherry.compose.state import ProjectContainer

    Object = dict[str, Any]

STATUSES = ("paused", "restarting", "removing", "running", "dead", "created", "exited")


class ServiceLine(ContainerLine):
    """A container of a project."""

    FIELDS = fields(
        "Command CreatedAt ExitCode Health ID Image Labels LocalVolumes Mounts Name Names Networks Ports "
        "Project "
        "Publishers RunningFor Service Size State Status"
    )
    HEADERS = {
        **ContainerLine.HEADERS,
        "ID": "ID",
        "Name": "NAME",
        "Service": "SERVICE",
        "Project": "PROJECT",
        "Health": "HEALTH",
        "ExitCode": "EXIT CODE",
        "Publishers": "PUBLISHERS",
    }
    TABLE = "{{.Name}}\t{{.Image}}\t{{.Command}}\t{{.Service}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}"

    def __init__(self, container: ProjectContainer, *, truncate: bool) -> None:
        super().__init__(container.about, truncate=truncate)
        self._container = container

    def get_name(self) -> str:
        return self._container.name

    def get_service(self) -> str:
        return self._container.service

    def get_project(self) -> str:
        return self._container.labels.get(labels.PROJECT, "")

    def get_health(self) -> str:
        status = self.get_status()
        for word, shown in (
            ("(healthy)", "healthy"),
            ("(unhealthy)", "unhealthy"),
            ("(health: starting)", "starting"),
        ):
            if word in status:
                return shown
        return ""

    def get_exitcode(self) -> int:
        """The exit code from the status ("Exited (3) 2 minutes ago"); lists have it nowhere else."""
        text = self.get_status()
        inside = text.partition("(")[2].partition(")")[0]
        return int(inside) if text.startswith("Exited") and inside.removeprefix("-").isdecimal() else 0

    def get_publishers(self) -> list[Object]:
        return [
            {
                "URL": one.get("IP") or "",
                "TargetPort": one.get("PrivatePort") or 0,
                "PublishedPort": one.get("PublicPort") or 0,
                "Protocol": one.get("Type") or "",
            }
            for one in self.c.get("Ports") or ()
        ]


def ps(ctx: Context, options: Options, args: list[str]) -> int:
    statuses = list(options.many("status"))
    for key, value in options.get("filter"):
        if key not in ("status", "source"):
            raise Failure(f"unknown filter {key}: only status is supported")
        statuses += [value] if key == "status" else []
    for status in statuses:
        if status not in STATUSES:
            raise Failure(f"unknown status {status}: one of {', '.join(STATUSES)}")
    session = ComposeSession(ctx, options)
    everything = options.on("all") or bool(statuses)
    oneoff = None if options.on("all") else False
    found = _listed(session, args, everything, oneoff, orphans=options.on("orphans"))
    found = [one for one in found if not statuses or one.state in statuses]
    if options.on("quiet"):
        for one in found:
            ctx.line(one.id)
        return 0
    if options.on("services"):
        for name in dict.fromkeys(one.service for one in found):
            ctx.line(name)
        return 0
    layout = options.text("format") or ctx.setting("psFormat") or "table"
    rows = [ServiceLine(one, truncate=not options.on("no-trunc")) for one in found]
    if layout == "json":
        for row in rows:
            ctx.raw(_go_json(row.as_object()))
        return 0
    table.show(ctx, rows, layout, default=ServiceLine.TABLE, headers=ServiceLine.HEADERS)
    return 0


def _listed(
    session: ComposeSession, args: Sequence[str], everything: bool, oneoff: bool | None, *, orphans: bool
) -> list[ProjectContainer]:
    if orphans:
        found = session.containers(args, all=everything, oneoff=oneoff)
    else:
        project = session.project(quiet=True)
        found = session.containers(args, all=everything, oneoff=oneoff, project=project.name)
        found = [one for one in found if one.service in project.all_services]
    return sorted(found, key=lambda one: one.name)


def _go_json(value: Any) -> str:
    from wherry.compose import gojson

    return gojson.compact(value)


def ls(ctx: Context, options: Options, args: list[str]) -> int:
    names: list[str] = []
    for key, value in options.get("filter"):
        if key != "name":
            raise Failure(f"invalid filter '{key}'")
        names.append(value)
    wanted = _filter(names)
    given = {"label": [labels.PROJECT, labels.CONFIG_HASH]}
    found = [
        state.ProjectContainer(one) for one in containers.listing(ctx.api, all=options.on("all"), given=given)
    ]
    by_project: dict[str, list[ProjectContainer]] = {}
    for one in found:
        by_project.setdefault(one.labels.get(labels.PROJECT, ""), []).append(one)
    rows = []
    for name in sorted(by_project):
        if not wanted(name):
            continue
        rows.append((name, _statuses(by_project[name]), _files(by_project[name])))
    if options.on("quiet"):
        for name, _status, _config in rows:
            ctx.line(name)
        return 0
    if _as_json(options):
        keys = ("Name", "Status", "ConfigFiles")
        ctx.raw(_go_json([dict(zip(keys, row, strict=True)) for row in rows]))
        return 0
    _wide(ctx, ["NAME", "STATUS", "CONFIG FILES"], rows)
    return 0


def _filter(names: Sequence[str]) -> Callable[[str], bool]:
    if not names:
        return lambda _name: True
    from wherry.model.patterns import Anywhere

    return Anywhere(names)


def _as_json(options: Options) -> bool:
    """:raises Failure: unknown format."""
    form = options.text("format") or "table"
    if form not in ("table", "pretty", "json"):
        raise Failure(f'format value "{form}" could not be parsed: table or json')
    return form == "json"


def _statuses(found: Sequence[ProjectContainer]) -> str:
    counts: dict[str, int] = {}
    for one in found:
        counts[one.state] = counts.get(one.state, 0) + 1
    return ", ".join(f"{word}({counts[word]})" for word in sorted(counts))


def _files(found: Sequence[ProjectContainer]) -> str:
    files: list[str] = []
    for one in found:
        files += [text for text in one.labels.get(labels.CONFIG_FILES, "").split(",") if text]
    return ",".join(dict.fromkeys(files)) or "N/A"


def _wide(ctx: Context, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns at least 20 wide, as in the plain tables of Docker's plugin."""
    from wherry.cli.console import one_line

    ctx.write(table.align(("\t".join(one_line(str(c)) for c in row) for row in [header, *rows]), 20))


def images_(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.errors import NotFound
    from wherry.model import reference

    as_json = _as_json(options)
    session = ComposeSession(ctx, options)
    found = session.containers(args)
    inspected: dict[str, Object] = {}
    for one in found:
        identifier = str(one.about.get("ImageID") or one.about.get("Image"))
        if identifier not in inspected:
            try:
                inspected[identifier] = images.inspect(ctx.api, identifier)
            except NotFound:
                inspected[identifier] = {"Id": identifier}
    if options.on("quiet"):
        for identifier in dict.fromkeys(str(one.get("Id", "")) for one in inspected.values()):
            ctx.line(identifier.removeprefix("sha256:"))
        return 0
    objects, rows = [], []
    for one in sorted(found, key=lambda c: c.name):
        image = inspected[str(one.about.get("ImageID") or one.about.get("Image"))]
        name, tag = "<none>", "<none>"
        text = str(one.about.get("Image") or "")
        if text and not text.startswith("sha256:"):
            parsed = reference.parse(text).with_default_tag()
            name, tag = parsed.familiar_name, parsed.tag or "<none>"
        platform = "/".join(
            p for p in (image.get("Os"), image.get("Architecture"), image.get("Variant")) if p
        )
        tagged = str((image.get("Metadata") or {}).get("LastTagTime") or "")
        size = int(image.get("Size") or 0)
        objects.append(
            {
                "ID": image.get("Id"),
                "ContainerName": one.name,
                "Repository": name,
                "Tag": tag,
                "Platform": platform,
                "Size": size,
                **({"LastTagTime": tagged} if tagged else {}),
            }
        )
        since = _ago(tagged)
        rows.append(
            (
                one.name,
                name,
                tag,
                platform,
                units.short_id(str(image.get("Id", ""))),
                units.size(size, 3),
                since,
            )
        )
    if as_json:
        ctx.raw(_go_json(objects))
        return 0
    _wide(ctx, ["CONTAINER", "REPOSITORY", "TAG", "PLATFORM", "IMAGE ID", "SIZE", "CREATED"], rows)
    return 0


def _ago(moment: str) -> str:
    from datetime import datetime

    try:
        return units.ago(int(datetime.fromisoformat(moment).timestamp()))
    except ValueError:
        return "N/A"


class ProjectVolumeLine(Row):
    FIELDS = fields("Availability Driver Group Labels Links Mountpoint Name Scope Size Status")
    HEADERS = {
        "Driver": "DRIVER",
        "Name": "VOLUME NAME",
        "Mountpoint": "MOUNTPOINT",
        "Scope": "SCOPE",
        "Labels": "LABELS",
    }
    TABLE = "{{.Driver}}\t{{.Name}}"

    def __init__(self, volume: Object) -> None:
        self.v = volume

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("get_"):
            raise AttributeError(name)
        wanted = name.removeprefix("get_")
        key = next((one for one in self.v if one.lower() == wanted), "")
        value = self.v.get(
            key, "N/A" if wanted in ("availability", "group", "links", "size", "status") else ""
        )
        if isinstance(value, dict):
            value = ",".join(f"{k}={value[k]}" for k in sorted(value))
        return lambda: value


def volumes_(ctx: Context, options: Options, args: list[str]) -> int:
    session = ComposeSession(ctx, options)
    project = session.project(quiet=True)
    for name in args:
        project.service(name)
    found = volumes.listing(ctx.api, {"label": [f"{labels.PROJECT}={project.name}"]}).get("Volumes") or []
    found = [one for one in found if not trash.is_trashed(str(one["Name"]))]
    if args:
        used = {
            project.resource_name("volumes", one["source"])
            for name in args
            for one in project.service(name).get("volumes") or ()
            if one["type"] == "volume" and one.get("source")
        }
        found = [one for one in found if one["Name"] in used]
    found.sort(key=lambda one: str(one["Name"]))
    if options.on("quiet"):
        for one in found:
            ctx.line(str(one["Name"]))
        return 0
    rows = [ProjectVolumeLine(one) for one in found]
    table.show(
        ctx,
        rows,
        options.text("format") or "table",
        default=ProjectVolumeLine.TABLE,
        headers=ProjectVolumeLine.HEADERS,
    )
    return 0


def version(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry import __version__

    if options.on("short"):
        ctx.say(__version__)
        return 0
    form = options.text("format") or "pretty"
    if form == "json":
        ctx.say(jsonwire.dumps({"version": __version__}))
    elif form == "pretty":
        ctx.say(f"wherry compose version {__version__}")
    else:
        raise Failure(f'format value "{form}" could not be parsed: pretty or json')
    return 0


_FORMAT = Flag(
    "format", "", STRING, "Format the output. Values: [table | json]", default="table", shown='"table"'
)
PS = Command(
    "[OPTIONS] [SERVICE...]",
    ps,
    (
        Flag("all", "a", BOOL, "Show all stopped containers (including those created by the run command)"),
        DRY_RUN,
        Flag("filter", "", FILTER, "Filter services by a property (supported filters: status)"),
        FORMAT_TABLE,
        NO_TRUNC,
        Flag(
            "orphans",
            "",
            BOOL,
            "Include services that the project does not declare",
            default=True,
            shown="true",
        ),
        Flag("quiet", "q", BOOL, "Only display IDs"),
        Flag("services", "", BOOL, "Display services"),
        Flag("status", "", LIST, f"Filter services by status. Values: [{' | '.join(STATUSES)}]"),
    ),
    most=UNLIMITED,
)
LS = Command(
    "[OPTIONS]",
    ls,
    (
        Flag("all", "a", BOOL, "Show all stopped Compose projects"),
        DRY_RUN,
        Flag("filter", "", FILTER, "Filter output based on conditions provided"),
        _FORMAT,
        Flag("quiet", "q", BOOL, "Only display project names"),
    ),
)
IMAGES = Command(
    "[OPTIONS] [SERVICE...]",
    images_,
    (DRY_RUN, _FORMAT, Flag("quiet", "q", BOOL, "Only display IDs")),
    most=UNLIMITED,
)
VOLUMES = Command(
    "[OPTIONS] [SERVICE...]",
    volumes_,
    (DRY_RUN, FORMAT_TABLE, Flag("quiet", "q", BOOL, "Only display volume names")),
    most=UNLIMITED,
)
VERSION = Command(
    "[OPTIONS]",
    version,
    (
        DRY_RUN,
        Flag("format", "f", STRING, "Format the output. Values: [pretty | json]. (Default: pretty)"),
        Flag("short", "", BOOL, "Shows only the version number"),
    ),
)
