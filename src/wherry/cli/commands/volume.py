"""``wherry volume ls|create|rm|rename``."""

from __future__ import annotations

from wherry.cli.command import UNLIMITED, Command, each
from wherry.cli.console import indented
from wherry.cli.grammar.common import FILTERS, FORMAT_TABLE
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, DURATION, INT, LABELS, MAP, STRING
from wherry.cli.render import table
from wherry.cli.render.order import natural
from wherry.cli.render.rows import VolumeLine
from wherry.client import volumes
from wherry.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def listing(ctx: Context, options: Options, args: list[str]) -> int:
    layout = options.text("format") or ctx.setting("volumesFormat") or "table"
    if options.on("quiet"):
        layout = table.quiet(options.text("format"), "Name", "name")
    found = volumes.listing(ctx.api, options.filters()).get("Volumes") or []
    rows = [VolumeLine(volume) for volume in sorted(found, key=lambda v: natural(str(v.get("Name", ""))))]
    table.show(ctx, rows, layout, default=VolumeLine.TABLE, headers=VolumeLine.HEADERS)
    return 0


def create(ctx: Context, options: Options, args: list[str]) -> int:
    name = args[0] if args else ""
    if options.given("name"):
        if name:
            raise InvalidArgument(
                "conflicting options: cannot specify a volume name through both --name and as a "
                "positional arg"
            )
        name = options.text("name")
    body = {
        "Name": name,
        "Driver": options.text("driver"),
        "DriverOpts": options.pairs("opt"),
        "Labels": options.pairs("label"),
    }
    made = str(volumes.create(ctx.api, body)["Name"])
    if options.given("snapshot-every"):
        from wherry.cli.commands.volumeversions import set_schedule

        set_schedule(ctx, made, options.number("snapshot-every"), options.number("keep"), freeze=False)
    elif options.given("keep"):
        raise InvalidArgument("--keep says how many snapshots of --snapshot-every are kept")
    ctx.say(made)
    return 0


def remove(ctx: Context, options: Options, args: list[str]) -> int:
    force = options.on("force")

    def one(name: str) -> str | None:
        try:
            volumes.remove(ctx.api, name, force=force)
        except NotFound as e:
            if not force:
                raise
            ctx.complain(indented(e.message))
            return None
        return name

    return each(ctx, args, one)


def rename(ctx: Context, options: Options, args: list[str]) -> int:
    ctx.line(str(volumes.rename(ctx.api, args[0], args[1])["Name"]))
    return 0


LS = Command(
    "[OPTIONS]",
    listing,
    (FILTERS, FORMAT_TABLE, Flag("quiet", "q", BOOL, "Only display volume names")),
)
CREATE = Command(
    "[OPTIONS] [VOLUME]",
    create,
    (
        Flag(
            "driver",
            "d",
            STRING,
            "Specify volume driver name",
            default="local",
            shown='"local"',
            complete="local",
        ),
        Flag("keep", "", INT, "Keep so many snapshots of the schedule", shown="24"),
        Flag("label", "", LABELS, "Set metadata for a volume"),
        Flag("name", "", STRING, "Specify volume name", hidden=True),
        Flag("opt", "o", MAP, "Set driver specific options", shown="map[]"),
        Flag("snapshot-every", "", DURATION, "Make a snapshot this often"),
    ),
    most=1,
)
RM = Command(
    "[OPTIONS] VOLUME [VOLUME...]",
    remove,
    (Flag("force", "f", BOOL, "Force the removal of one or more volumes"),),
    least=1,
    most=UNLIMITED,
    complete="volume",
    description="Remove one or more volumes. A volume that a container uses cannot be removed.",
)
RENAME = Command(
    "VOLUME NEW_NAME",
    rename,
    least=2,
    most=2,
    complete="volume none",
    description="Rename a volume, also while containers use it: they keep it.",
)
