"""``wherry system backup|restore``."""

from __future__ import annotations

import os

from wherry.cli.command import UNLIMITED, Command, Failure
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, STRING
from wherry.client import system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def backup(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.commands.imagearchive import give, output

    path = output(options)
    archive = system.backup(
        ctx.api,
        images=options.text("images") or "whole",
        volumes=not options.on("no-volumes"),
        secrets=options.on("secrets"),
        freeze=not options.on("no-freeze"),
    )
    give(path, archive, "Backing up")
    return 0


def restore(ctx: Context, options: Options, args: list[str]) -> int:
    """The daemon's program does the restore, because it owns the format."""
    from wherry.cli.daemons.local import executable

    if args[0] != "-" and not os.path.isfile(args[0]):
        raise Failure(f"cannot restore: no such file: {args[0]}")
    program = executable()
    os.execv(program, [program, "--restore", args[0], *args[1:]])


BACKUP = Command(
    "[OPTIONS]",
    backup,
    (
        Flag("output", "o", STRING, "Write to a file, instead of STDOUT"),
        Flag("images", "", STRING, 'How much of images: "whole", or "reference" without what can be pulled'),
        Flag("no-volumes", "", BOOL, "Leave the data of volumes out"),
        Flag("no-freeze", "", BOOL, "Let containers run on while their files are read"),
        Flag("secrets", "", BOOL, "Put the key of the secrets in as well"),
    ),
    description="Write everything of the daemon, while it runs, to one archive",
)
RESTORE = Command(
    "FILE [WHERRYD-FLAG...]",
    restore,
    least=1,
    most=UNLIMITED,
    interspersed=False,
    description="Put a backup below the empty root of this host's daemon, which must not run",
)
