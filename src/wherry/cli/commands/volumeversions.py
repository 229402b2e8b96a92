"""``wherry volume snapshot|clone|diff|du|export|import|schedule``: additions that Docker does not have."""

from __future__ import annotations

import os

from wherry.cli.command import UNLIMITED, Command, Failure, each
from wherry.cli.console import on_terminal, one_line, safe
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, DURATION, INT, LIST, STRING
from wherry.cli.render import units
from wherry.client import volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options

_KINDS = {0: "C", 1: "A", 2: "D"}
_SECOND = 10**9
_READ = 1 << 20
_FREEZE = Flag("freeze", "", BOOL, "Hold the containers that write to it still meanwhile")
_COMPRESSIONS = {".gz": "gzip", ".tgz": "gzip", ".zst": "zstd", ".tzst": "zstd"}


def columns(ctx: Context, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table without ``--format``."""
    every = [tuple(headers), *(tuple(map(one_line, row)) for row in rows)]
    widths = [max(len(row[n]) for row in every) for n in range(len(headers))]
    for row in every:
        ctx.say("   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


# ---- snapshots ---------------------------------------------------------------------------------------------


def snapshot_create(ctx: Context, options: Options, args: list[str]) -> int:
    label = args[1] if len(args) > 1 else ""
    ctx.line(str(volumes.snapshot(ctx.api, args[0], label, freeze=options.on("freeze"))["Name"]))
    return 0


def snapshot_ls(ctx: Context, options: Options, args: list[str]) -> int:
    found = volumes.snapshots(ctx.api, args[0])["Snapshots"]
    if options.on("quiet"):
        for one in found:
            ctx.line(str(one["Name"]))
        return 0
    rows = [_row(one) for one in found]
    columns(ctx, ("SNAPSHOT", "CREATED", "ORIGIN", "FROZEN"), rows)
    return 0


def _row(one: dict[str, Any]) -> list[str]:
    created = units.parse_time(str(one["CreatedAt"]))
    return [
        str(one["Name"]),
        units.ago(created),
        str(one["Origin"]),
        "yes" if one["Frozen"] else "no",
    ]


def snapshot_rm(ctx: Context, options: Options, args: list[str]) -> int:
    def one(label: str) -> str:
        volumes.remove_snapshot(ctx.api, args[0], label)
        return label

    return each(ctx, args[1:], one)


def snapshot_restore(ctx: Context, options: Options, args: list[str]) -> int:
    kept = volumes.restore(ctx.api, args[0], args[1])["Kept"]
    ctx.complain(f"The previous data is snapshot {safe(str(kept['Name']))}")
    ctx.say(args[0])
    return 0


def clone(ctx: Context, options: Options, args: list[str]) -> int:
    snapshot, freeze = options.text("snapshot"), options.on("freeze")
    ctx.line(str(volumes.clone(ctx.api, args[0], args[1], snapshot=snapshot, freeze=freeze)["Name"]))
    return 0


def schedule(ctx: Context, options: Options, args: list[str]) -> int:
    if options.on("rm"):
        volumes.schedule(ctx.api, args[0], every=0, keep=1, freeze=False)
    elif options.given("every"):
        set_schedule(
            ctx, args[0], options.number("every"), options.number("keep"), freeze=options.on("freeze")
        )
    found = volumes.snapshots(ctx.api, args[0])["Schedule"]
    if not found:
        ctx.say("no schedule")
        return 0
    frozen = ", frozen" if found["Freeze"] else ""
    due = one_line(str(found["Due"]))
    ctx.say(f"every {found['Every']} s, {found['Keep']} kept{frozen}, next at {due}")
    return 0


def set_schedule(ctx: Context, name: str, every: int, keep: int, *, freeze: bool) -> None:
    """``every`` in nanoseconds, in the form of flags."""
    volumes.schedule(ctx.api, name, every=max(1, every // _SECOND), keep=keep or 24, freeze=freeze)


# ---- looking -----------------------------------------------------------------------------------------------


def diff(ctx: Context, options: Options, args: list[str]) -> int:
    for change in volumes.changes(ctx.api, args[0], args[1], args[2] if len(args) > 2 else ""):
        ctx.line(f"{_KINDS.get(int(change['Kind']), '?')} {change['Path']}")
    return 0


def du(ctx: Context, options: Options, args: list[str]) -> int:
    depth = options.number("depth") if options.given("depth") else 1
    found = volumes.sizes(ctx.api, args[0], snapshot=options.text("snapshot"), depth=depth)
    rows = [[units.size(int(s["Size"])), str(s["Entries"]), str(s["Path"])] for s in found]
    columns(ctx, ("SIZE", "ENTRIES", "PATH"), rows)
    return 0


# ---- files -------------------------------------------------------------------------------------------------


def export(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.commands.imagearchive import give, output

    path = output(options)
    compression = options.text("compression") or _COMPRESSIONS.get(os.path.splitext(path)[1], "none")
    snapshot = options.text("snapshot")
    archive = volumes.export(ctx.api, args[0], compression=compression, snapshot=snapshot)
    give(path, archive, "Exporting")
    return 0


def import_(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.terminal.progress import Working

    source = args[1] if len(args) > 1 else "-"
    if source == "-" and on_terminal(0):
        raise Failure("no archive given: name a file, or redirect one to the standard input")
    with Working("Importing") as working:
        pieces = working.over(_pieces(source))
        merge = options.on("merge")
        made = volumes.import_(ctx.api, args[0], pieces, labels=options.many("label"), merge=merge)
    ctx.line(str(made["Name"]))
    return 0


def _pieces(path: str) -> Iterator[bytes]:
    descriptor = 0 if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while piece := os.read(descriptor, _READ):
            yield piece
    finally:
        if descriptor:
            os.close(descriptor)


SNAPSHOT_CREATE = Command(
    "[OPTIONS] VOLUME [SNAPSHOT]", snapshot_create, (_FREEZE,), least=1, most=2, complete="volume none"
)
SNAPSHOT_LS = Command(
    "[OPTIONS] VOLUME",
    snapshot_ls,
    (Flag("quiet", "q", BOOL, "Only display names"),),
    least=1,
    most=1,
    complete="volume none",
)
SNAPSHOT_RM = Command(
    "VOLUME SNAPSHOT [SNAPSHOT...]", snapshot_rm, least=2, most=UNLIMITED, complete="volume none"
)
SNAPSHOT_RESTORE = Command(
    "VOLUME SNAPSHOT",
    snapshot_restore,
    least=2,
    most=2,
    complete="volume none",
    description="Put a snapshot's data in the place of the volume's. No running container may have it open;\n"
    "what was there before is a snapshot afterwards.",
)
CLONE = Command(
    "[OPTIONS] VOLUME NEW_VOLUME",
    clone,
    (_FREEZE, Flag("snapshot", "", STRING, "Take what was in this snapshot")),
    least=2,
    most=2,
    complete="volume none",
)
SCHEDULE = Command(
    "[OPTIONS] VOLUME",
    schedule,
    (
        Flag("every", "", DURATION, "Make a snapshot this often"),
        _FREEZE,
        Flag("keep", "", INT, "Keep so many of them", shown="24"),
        Flag("rm", "", BOOL, "End the schedule"),
    ),
    least=1,
    most=1,
    complete="volume none",
    description="Show or set when snapshots of a volume are made, and how many are kept.",
)
DIFF = Command(
    "VOLUME SNAPSHOT [SNAPSHOT]",
    diff,
    least=2,
    most=3,
    complete="volume none",
    description="Show what changed from a snapshot to another, or to the volume as it is.",
)
DU = Command(
    "[OPTIONS] VOLUME",
    du,
    (
        Flag("depth", "d", INT, "Directories down to this depth", shown="1"),
        Flag("snapshot", "", STRING, "Look at this snapshot"),
    ),
    least=1,
    most=1,
    complete="volume none",
)
EXPORT = Command(
    "[OPTIONS] VOLUME",
    export,
    (
        Flag("compression", "", STRING, "none, gzip or zstd", complete="words:none,gzip,zstd"),
        Flag("output", "o", STRING, "Write to a file, instead of STDOUT", complete="file"),
        Flag("snapshot", "", STRING, "Take what was in this snapshot"),
    ),
    least=1,
    most=1,
    complete="volume none",
    description="Write a volume as a tar archive. The name of the file (.gz, .zst) chooses the compression.",
)
IMPORT = Command(
    "[OPTIONS] VOLUME [FILE|-]",
    import_,
    (
        Flag("label", "", LIST, "Set metadata for the volume"),
        Flag("merge", "", BOOL, "Extract into the volume if it is there already"),
    ),
    least=1,
    most=2,
    complete="none file",
    description="Make a volume of a tar archive, plain or compressed, from a file or the standard input.",
)
