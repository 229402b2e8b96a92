"""The common part of ``up``, ``create``, ``scale``, ``run`` and ``watch``: containers and images according to
flags."""

from __future__ import annotations

from wherry.cli.command import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wherry.cli.composing.session import ComposeSession
    from wherry.compose.converge import Converger
    from wherry.compose.project import Project
    from wherry.compose.pulling import ProjectImages
    from wherry.compose.state import ProjectContainer

    Found = Mapping[str, Sequence[ProjectContainer]]


def converge(session: ComposeSession, project: Project, args: Sequence[str], say: object) -> Found:
    """Create the containers according to the flags. :returns: the containers of each service."""
    return containers_of(project, converger(session, project, args, say))


def containers_of(project: Project, converger: Converger) -> Found:
    """The containers of each service, without new ones that ``rolling`` is to start beside the old ones."""
    waiting = [pair.new for pairs in converger.rolling.values() for pair in pairs if pair.new is not None]
    return {
        name: [one for one in converger.containers.get(name, []) if one not in waiting]
        for name in project.services
    }


def converger(session: ComposeSession, project: Project, args: Sequence[str], say: object) -> Converger:
    """The same. :returns: who has made them, and knows what ``--rolling`` has left to do."""
    from wherry.compose import rolling, upping
    from wherry.compose.converge import DIVERGED, FORCE, NEVER, ConvergePlan
    from wherry.compose.reporting import ProjectReporter

    options = session.options
    recreate = FORCE if options.on("force-recreate") else NEVER if options.on("no-recreate") else DIVERGED
    always_deps = "always-recreate-deps" in options and options.on("always-recreate-deps")
    plan = ConvergePlan(
        recreate=recreate,
        recreate_dependencies=FORCE if always_deps else NEVER if recreate == NEVER else DIVERGED,
        renew_volumes="renew-anon-volumes" in options and options.on("renew-anon-volumes"),
        timeout=session.timeout if "timeout" in options else None,
        dry_run=session.dry_run,
        rolling=rolling.check if "rolling" in options and options.on("rolling") else None,
        asked=args,
    )
    report = ProjectReporter(say, session.warn, session.confirm)  # type: ignore[arg-type]
    return upping.create(
        session.sessions,
        project,
        plan,
        images_of(session, project),
        report,
        remove_orphans=options.on("remove-orphans"),
        yes=options.on("yes"),
    )


def images_of(session: ComposeSession, project: Project) -> ProjectImages:
    """How images are obtained, according to ``--pull``, ``--build`` and ``--no-build``."""
    from wherry.compose.pulling import POLICIES, ProjectImages

    options = session.options
    policy = options.text("pull")
    if policy not in ("", "policy", *POLICIES):
        raise Failure(f'invalid --pull option "{policy}"')
    quiet = "quiet-build" in options and options.on("quiet-build")

    def build(names: list[str]) -> None:
        from wherry.cli.composing import building
        from wherry.compose.buildspec import BuildChoices

        building.build(session, project, names, BuildChoices(quiet=quiet))

    no_build = "no-build" in options and options.on("no-build")
    return ProjectImages(
        policy=policy,
        build=None if no_build else build,
        force_build=options.on("build"),
        quiet=options.on("quiet-pull"),
        config_dir=session.ctx.config_dir,
    )
