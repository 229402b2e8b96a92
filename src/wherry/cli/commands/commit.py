"""``wherry commit``."""

from __future__ import annotations

from wherry.cli.command import Command, Failure
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, LIST, STRING
from wherry.cli.terminal.progress import Working
from wherry.client import containers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def commit(ctx: Context, options: Options, args: list[str]) -> int:
    repository, tag = "", ""
    if len(args) > 1 and args[1]:
        from wherry.model import reference

        target = reference.parse(args[1])
        if target.digest is not None:
            raise Failure("refusing to create a tag with a digest reference")
        target = target.with_default_tag()
        repository, tag = target.familiar_name, target.tag or ""
    if options.given("pause") and options.given("no-pause"):
        raise Failure("conflicting options: --no-pause and --pause cannot be used together")
    with Working("Committing"):
        image = containers.commit(
            ctx.api,
            args[0],
            repository=repository,
            tag=tag,
            comment=options.text("message"),
            author=options.text("author"),
            pause=options.on("pause") and not options.on("no-pause"),
            changes=options.many("change"),
        )
    ctx.say(image)
    return 0


COMMIT = Command(
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    commit,
    (
        Flag("author", "a", STRING, 'Author (e.g., "Ada Lovelace <ada@example.org>")'),
        Flag("change", "c", LIST, "Apply Dockerfile instruction to the created image"),
        Flag("message", "m", STRING, "Commit message"),
        Flag("no-pause", "", BOOL, "Do not hold the container still while its files are read"),
        Flag("pause", "p", BOOL, "Pause container during commit", default=True, shown="true", hidden=True),
    ),
    least=1,
    most=2,
    complete="container image none",
)
