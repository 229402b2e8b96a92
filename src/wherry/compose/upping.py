"""``up`` and ``create``: networks, volumes, images and containers according to the file, in that order."""

from __future__ import annotations

from wherry.compose import pulling, resources, state
from wherry.compose.converge import Converger
from wherry.compose.work import in_order, run_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wherry.client.api import Api
    from wherry.compose.converge import ConvergePlan
    from wherry.compose.project import Project
    from wherry.compose.pulling import ProjectImages
    from wherry.compose.reporting import ProjectReporter
    from wherry.compose.state import ProjectContainer
    from wherry.compose.work import DaemonSessions


def create(
    sessions: DaemonSessions,
    project: Project,
    plan: ConvergePlan,
    images: ProjectImages,
    report: ProjectReporter,
    *,
    remove_orphans: bool = False,
    yes: bool = False,
) -> Converger:
    """Create every service's containers without starting them. :returns: who has them, by service.

    :raises WherryError: an object cannot be created, or an image cannot be obtained.
    """
    from wherry.compose.selecting import prune_resources

    identities = pulling.ensure(sessions, project, project.services, images, report, dry_run=plan.dry_run)
    prune_resources(project)
    with sessions.lend() as api:
        found = state.of_project(api, project.name)
    _make_resources(sessions, project, plan, report, found, yes=yes)
    found = [one for one in found if not one.removed]
    orphans = [one for one in found if one.service not in project.all_services]
    converger = Converger(project, found, identities, plan, report)
    if orphans and remove_orphans:
        run_all(sessions, [_remover(converger, one) for one in orphans])
    elif orphans and not _ignore_orphans(project):
        names = " ".join(sorted(one.name for one in orphans))
        report.warn(
            f"Found orphan containers ([{names}]) for this project. If you removed or renamed this "
            "service in your "
            "compose file, you can run this command with the --remove-orphans flag to clean it up."
        )
    in_order(
        sessions, {name: list(project.dependencies(name)) for name in project.services}, converger.converge
    )
    return converger


def _remover(converger: Converger, container: ProjectContainer) -> Callable[[Api], None]:
    return lambda api: converger.remove(api, container)


def _ignore_orphans(project: Project) -> bool:
    return project.environment.get("COMPOSE_IGNORE_ORPHANS", "").lower() in ("1", "true", "t")


def _make_resources(
    sessions: DaemonSessions,
    project: Project,
    plan: ConvergePlan,
    report: ProjectReporter,
    found: Sequence[ProjectContainer],
    *,
    yes: bool,
) -> None:
    def network(key: str) -> Callable[[Api], None]:
        return lambda api: resources.ensure_network(api, project, key, report, found, dry_run=plan.dry_run)

    def volume(key: str) -> Callable[[Api], None]:
        return lambda api: resources.ensure_volume(
            api, project, key, report, found, yes=yes, dry_run=plan.dry_run
        )

    run_all(sessions, [network(key) for key in sorted(project.networks)])
    run_all(sessions, [volume(key) for key in sorted(project.volumes)])
