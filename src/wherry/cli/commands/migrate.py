"""``wherry migrate docker`` and ``wherry export-all``: from a Docker Engine, and back."""

from __future__ import annotations

from wherry.cli.command import Command, Failure
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, STRING
from wherry.cli.render.units import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options
    from wherry.migrate.takeover import DockerTakeover


def docker(ctx: Context, options: Options, args: list[str]) -> int:
    """The exit code is 1 if something could not be taken over."""
    from wherry.migrate.dockerroot import DockerRoot
    from wherry.migrate.takeover import DockerTakeover

    root = DockerRoot(options.text("data-root"))
    takeover = DockerTakeover(root, ctx.api, ctx.line, containerd=options.text("containerd-root"))
    if options.on("dry-run"):
        _show(ctx, takeover)
        return 0
    failed = takeover.run(start=options.on("start"))
    waiting = [plan.name for plan in takeover.plans if plan.comes_back]
    if waiting and not options.on("start"):
        ctx.line(f"Docker would start these at its own start: wherry start {' '.join(waiting)}")
    if failed:
        raise Failure(f"{failed} could not be taken over; a second try leaves what is there as it is")
    return 0


def _show(ctx: Context, takeover: DockerTakeover) -> None:
    for item in takeover.items:
        more = f" ({size(item.size)})" if item.size else ""
        ctx.line(f"{item.kind} {item.name}{more}" + (f": left out: {item.skipped}" if item.skipped else ""))
    ctx.line(f"The layers of the images are {size(takeover.image_size)}. Nothing was changed.")


def export_all(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.migrate.exporting import export

    export(ctx.api, args[0], ctx.line)
    return 0


DOCKER = Command(
    "[OPTIONS]",
    docker,
    (
        Flag(
            "data-root", "", STRING, "Root of the Docker Engine", default="/var/lib/docker", complete="file"
        ),
        Flag(
            "containerd-root",
            "",
            STRING,
            "Root of its containerd, if its store has the images",
            complete="file",
        ),
        Flag("dry-run", "", BOOL, "Only show what would be taken over"),
        Flag("start", "", BOOL, "Start the containers that Docker would start by itself"),
    ),
    description="Take over images, volumes, networks, and containers as they were created, from a Docker "
    "Engine (20.10 to 29) that does not run. What it has kept is only read. What a container has written "
    "outside of its volumes is not taken over: commit it first.",
)
EXPORT_ALL = Command(
    "DIRECTORY",
    export_all,
    (),
    least=1,
    most=1,
    complete="file",
    description="Write images, volumes, networks and containers to a new directory, with a script that puts "
    "them into a Docker Engine",
)
