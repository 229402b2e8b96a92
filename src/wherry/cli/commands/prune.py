"""Remove unused containers, images, networks, volumes, or all of them."""

from __future__ import annotations

from wherry.cli.command import Command, Failure
from wherry.cli.console import confirm
from wherry.cli.grammar.common import FORCE_PRUNE
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, FILTER
from wherry.cli.render import units
from wherry.cli.terminal.progress import Working
from wherry.client import builds, containers, images, networks, volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options
    from wherry.client.api import Api

    Filters = dict[str, list[str]]
    Report = tuple[list[str], int]

SURE = "Are you sure you want to continue?"
STOPPED = "all stopped containers"
DANGLING = "all dangling images"
UNUSED_IMAGES = "all images without at least one container associated to them"
UNUSED_NETWORKS = "all networks not used by at least one container"
ANONYMOUS = "anonymous local volumes not used by at least one container"
UNUSED_VOLUMES = "all local volumes not used by at least one container"


def _prune_containers(api: Api, given: Filters) -> Report:
    with Working("Removing containers"):
        answer = containers.prune(api, given)
    deleted = answer.get("ContainersDeleted") or []
    lines = ["Deleted Containers:", *deleted, ""] if deleted else []
    return lines, int(answer.get("SpaceReclaimed") or 0)


def _prune_images(api: Api, given: Filters, *, all: bool) -> Report:
    with Working("Removing images"):
        answer = images.prune(api, given | {"dangling": ["false" if all else "true"]})
    lines = [
        f"untagged: {one['Untagged']}" if one.get("Untagged") else f"deleted: {one.get('Deleted')}"
        for one in answer.get("ImagesDeleted") or []
    ]
    return (["Deleted Images:", *lines, ""] if lines else []), int(answer.get("SpaceReclaimed") or 0)


def _prune_volumes(api: Api, given: Filters, *, all: bool) -> Report:
    with Working("Removing volumes"):
        answer = volumes.prune(api, given | ({"all": ["true"]} if all else {}))
    deleted = answer.get("VolumesDeleted") or []
    return (["Deleted Volumes:", *deleted, ""] if deleted else []), int(answer.get("SpaceReclaimed") or 0)


def _prune_networks(api: Api, given: Filters) -> Report:
    with Working("Removing networks"):
        answer = networks.prune(api, given)
    deleted = answer.get("NetworksDeleted") or []
    return (["Deleted Networks:", *deleted, ""] if deleted else []), 0


def _agreed(ctx: Context, options: Options, what: str) -> bool:
    """Whether to continue: ``--force``, or a yes on the terminal."""
    return options.on("force") or confirm(f"WARNING! This will remove {what}.\n{SURE}")


def _report(ctx: Context, lines: list[str], reclaimed: int) -> None:
    for line in lines:
        ctx.line(line)
    ctx.say(f"Total reclaimed space: {units.size(reclaimed, 4)}")


def prune_containers(ctx: Context, options: Options, args: list[str]) -> int:
    if not _agreed(ctx, options, STOPPED):
        return 0
    _report(ctx, *_prune_containers(ctx.api, options.filters()))
    return 0


def prune_images(ctx: Context, options: Options, args: list[str]) -> int:
    everything = options.on("all")
    if not _agreed(ctx, options, UNUSED_IMAGES if everything else DANGLING):
        return 0
    given = options.filters()
    _report(ctx, *_prune_images(ctx.api, given, all=everything))
    if not given:
        _tell_spared(ctx)
    return 0


def _tell_spared(ctx: Context) -> None:
    """Images without a name that are kept for rollbacks."""
    left = [one for one in images.listing(ctx.api, given={"dangling": ["true"]}) if not one.get("Containers")]
    if left:
        held = units.size(sum(int(one.get("Size") or 0) for one in left), 4)
        ctx.complain(
            f"Spared for a rollback: {len(left)} earlier version{'s' if len(left) > 1 else ''} of names "
            f"({held}, shared layers counted each time). See wherry image log NAME; "
            "wherry image prune --filter versions=true removes them too."
        )


def prune_volumes(ctx: Context, options: Options, args: list[str]) -> int:
    everything = options.on("all")
    if not _agreed(ctx, options, UNUSED_VOLUMES if everything else ANONYMOUS):
        return 0
    _report(ctx, *_prune_volumes(ctx.api, options.filters(), all=everything))
    return 0


def prune_networks(ctx: Context, options: Options, args: list[str]) -> int:
    if not _agreed(ctx, options, "all custom networks not used by at least one container"):
        return 0
    lines, _ = _prune_networks(ctx.api, options.filters())
    for line in lines:
        ctx.line(line)
    return 0


def _prune_cache(api: Api, given: Filters, *, all: bool) -> Report:
    with Working("Removing build cache"):
        answer = builds.prune(api, given, all=all)
    deleted = answer.get("CachesDeleted") or []
    lines = ["Deleted build cache objects:", *deleted, ""] if deleted else []
    return lines, int(answer.get("SpaceReclaimed") or 0)


def prune_system(ctx: Context, options: Options, args: list[str]) -> int:
    everything, with_volumes, given = options.on("all"), options.on("volumes"), options.filters()
    if with_volumes and "until" in given:
        raise Failure('ERROR: The "until" filter is not supported with "--volumes"')
    what = [
        STOPPED,
        UNUSED_NETWORKS,
        *([ANONYMOUS] if with_volumes else []),
        UNUSED_IMAGES if everything else DANGLING,
        "unused build cache" if everything else "dangling build cache",
    ]
    if not options.on("force"):
        listing = "".join(f"  - {one}\n" for one in what)
        items = "".join(f"  - {k}={v}\n" for k, values in given.items() for v in values)
        filtered = f"\n  Items to be pruned will be filtered with:\n{items}" if items else ""
        if not confirm(f"WARNING! This will remove:\n{listing}{filtered}\n{SURE}"):
            return 0
    reports = [_prune_containers(ctx.api, given), _prune_networks(ctx.api, given)]
    if with_volumes:
        reports.append(_prune_volumes(ctx.api, given, all=False))
    reports.append(_prune_images(ctx.api, given, all=everything))
    reports.append(_prune_cache(ctx.api, given, all=everything))
    _report(ctx, [line for lines, _ in reports for line in lines], sum(size for _, size in reports))
    return 0


def _filter(example: str) -> Flag:
    return Flag("filter", "", FILTER, f'Provide filter values (e.g. "{example}")')


CONTAINERS = Command("[OPTIONS]", prune_containers, (_filter("until=<timestamp>"), FORCE_PRUNE))
IMAGES = Command(
    "[OPTIONS]",
    prune_images,
    (
        Flag("all", "a", BOOL, "Remove all unused images, not just dangling ones"),
        _filter("until=<timestamp>"),
        FORCE_PRUNE,
    ),
)
VOLUMES = Command(
    "[OPTIONS]",
    prune_volumes,
    (
        Flag("all", "a", BOOL, "Remove all unused volumes, not just anonymous ones"),
        _filter("label=<label>"),
        FORCE_PRUNE,
    ),
)
NETWORKS = Command("[OPTIONS]", prune_networks, (_filter("until=<timestamp>"), FORCE_PRUNE))
SYSTEM = Command(
    "[OPTIONS]",
    prune_system,
    (
        Flag("all", "a", BOOL, "Remove all unused images not just dangling ones"),
        _filter("label=<key>=<value>"),
        FORCE_PRUNE,
        Flag("volumes", "", BOOL, "Prune anonymous volumes"),
    ),
)
