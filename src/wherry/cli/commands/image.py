"""``wherry image ls|rm|tag|history``."""

from __future__ import annotations

from wherry.cli.command import UNLIMITED, Command, Failure
from wherry.cli.console import indented
from wherry.cli.daemons.several import ask
from wherry.cli.grammar.common import FILTERS, FORMAT_TABLE, NO_TRUNC, PLATFORM
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, STRINGS
from wherry.cli.render import table
from wherry.cli.render.rows import HistoryLine, ImageLine, image_rows
from wherry.client import images
from wherry.errors import InvalidArgument, NotFound, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def listing(ctx: Context, options: Options, args: list[str]) -> int:
    if options.on("tree"):
        return _tree(ctx, options, args)
    layout = options.text("format") or ctx.setting("imagesFormat") or "table"
    if options.on("quiet"):
        layout = table.quiet(options.text("format"), "ID", "image_id")
    given = options.filters()
    if args:
        given.setdefault("reference", []).append(args[0])
    table.compile_format(table.split_format(layout, ImageLine.TABLE)[1])
    answers = ask(ctx, lambda one: images.listing(one.api, all=options.on("all"), given=given))
    digests = options.on("digests")
    rows = (
        row.of(answer)
        for answer in answers
        for row in image_rows(
            sorted(answer.value, key=lambda image: -int(image.get("Created") or 0)),
            digests=digests or ".Digest" in layout,
            truncate=not options.on("no-trunc"),
            digest_rows=digests,
        )
    )
    default = ImageLine.TABLE_DIGEST if digests else ImageLine.TABLE
    table.show(ctx, rows, layout, default=default, headers=ImageLine.HEADERS)
    return answers.finish(ctx)


def _tree(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.commands.imagetree import lines

    for flag in ("quiet", "no-trunc", "digests", "format"):
        if options.given(flag):
            raise Failure(f"--{flag} is not yet supported with --tree")
    given = options.filters()
    if args:
        given.setdefault("reference", []).append(args[0])
    everything = options.on("all")
    for line in lines(images.listing(ctx.api, all=everything, manifests=True, given=given)):
        ctx.say(line)
    return 0


def history(ctx: Context, options: Options, args: list[str]) -> int:
    layout = options.text("format") or "table"
    if options.on("quiet"):
        layout = table.quiet(options.text("format"), "ID", "image_id")
    steps = images.history(ctx.api, args[0], platform=options.text("platform"))
    human, truncate = options.on("human"), not options.on("no-trunc")
    table.show(
        ctx,
        [HistoryLine(step, truncate=truncate, human=human) for step in steps],
        layout,
        default=HistoryLine.TABLE,
        headers=HistoryLine.HEADERS if human else HistoryLine.HEADERS | {"CreatedSince": "CREATED AT"},
    )
    return 0


def tag(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.model import reference

    try:
        target = reference.parse(args[1]).with_default_tag()
    except InvalidArgument as e:
        raise InvalidArgument(
            f'Error parsing reference: "{args[1]}" is not a valid repository/tag: {e.message}'
        ) from e
    if target.digest is not None:
        raise Failure("refusing to create a tag with a digest reference")
    images.tag(ctx.api, args[0], target.familiar_name, target.tag or "")
    return 0


def remove(ctx: Context, options: Options, args: list[str]) -> int:
    problems: list[str] = []
    fatal = False
    for name in args:
        try:
            deleted = images.remove(
                ctx.api,
                name,
                force=options.on("force"),
                no_prune=options.on("no-prune"),
                platforms=options.many("platform"),
            )
        except WherryError as e:
            problems.append(e.message)
            fatal = fatal or not isinstance(e, NotFound)
            continue
        for one in deleted:
            what = "Deleted" if one.get("Deleted") else "Untagged"
            ctx.line(f"{what}: {one.get(what)}")
    for problem in problems:
        ctx.complain(indented(problem))
    return 1 if problems and (fatal or not options.on("force")) else 0


LS = Command(
    "[OPTIONS] [REPOSITORY[:TAG]]",
    listing,
    (
        Flag("all", "a", BOOL, "Show all images (default hides intermediate images)"),
        Flag("digests", "", BOOL, "Show digests"),
        FILTERS,
        FORMAT_TABLE,
        NO_TRUNC,
        Flag("quiet", "q", BOOL, "Only show image IDs"),
        Flag("tree", "", BOOL, "List multi-platform images as a tree"),
    ),
    several=True,
    most=1,
    complete="image none",
)
HISTORY = Command(
    "[OPTIONS] IMAGE",
    history,
    (
        FORMAT_TABLE,
        Flag(
            "human", "H", BOOL, "Print sizes and dates in human readable format", default=True, shown="true"
        ),
        NO_TRUNC,
        PLATFORM,
        Flag("quiet", "q", BOOL, "Only show image IDs"),
    ),
    least=1,
    most=1,
    complete="image none",
)
TAG = Command("SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", tag, least=2, most=2, complete="image image none")
RM = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    remove,
    (
        Flag("force", "f", BOOL, "Force removal of the image"),
        Flag("no-prune", "", BOOL, "Do not delete untagged parents"),
        Flag("platform", "", STRINGS, 'Remove only the variant for this platform, "os[/arch[/variant]]"'),
    ),
    least=1,
    most=UNLIMITED,
    complete="image",
)
