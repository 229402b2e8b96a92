"""Load a project and open connections to the daemon, according to the flags."""

from __future__ import annotations

import os

from wherry.cli.command import Failure
from wherry.compose.finding import WantedProject
from wherry.compose.places import ComposeError
from wherry.compose.work import DaemonSessions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wherry.cli.command import Context
    from wherry.cli.composing.display import Display
    from wherry.cli.grammar.flags import Options
    from wherry.compose.loading import How
    from wherry.compose.project import Project
    from wherry.compose.remotefiles import RemoteFiles
    from wherry.compose.reporting import ProjectReporter
    from wherry.compose.state import ProjectContainer

PARALLEL_MAX = 64
"""The default number of parallel requests."""


class ComposeSession:
    """One run of a ``compose`` command."""

    def __init__(self, ctx: Context, options: Options) -> None:
        self.ctx, self.options = ctx, options
        assert ctx.group is not None
        self.flags = ctx.group
        self.dry_run = self.flags.on("dry-run") or ("dry-run" in options and options.on("dry-run"))
        self._sessions: DaemonSessions | None = None
        self._remotes: RemoteFiles | None = None
        self._tell: Callable[[str], None] = ctx.complain
        if self.flags.given("progress") or self.flags.given("ansi"):
            from wherry.cli.composing.display import check

            check(*self._modes)  # also for a command that shows no progress

    @property
    def _modes(self) -> tuple[str, str]:
        """How progress is shown, and whether with escape sequences."""
        mode = self.flags.text("progress") or os.environ.get("COMPOSE_PROGRESS", "") or "auto"
        ansi = self.flags.text("ansi") if self.flags.given("ansi") else os.environ.get("COMPOSE_ANSI", "auto")
        return mode, ansi

    @property
    def wanted(self) -> WantedProject:
        name = self.flags.text("project-name")
        return WantedProject(
            files=self.flags.many("file"),
            name=name,
            directory=self.flags.text("project-directory"),
            env_files=self.flags.many("env-file"),
            profiles=self.flags.many("profile"),
            fetch=self._fetch,
        )

    def _fetch(self, name: str) -> str:
        """A file of the project that lies elsewhere; the daemon is only asked for what is in a registry."""
        if self._remotes is None:
            from wherry.compose.remotefiles import RemoteFiles

            self._remotes = RemoteFiles(lambda: self.sessions.lend(), self.ctx.config_dir)
        return self._remotes.fetch(name)

    @property
    def given_name(self) -> str:
        return self.flags.text("project-name") or os.environ.get("COMPOSE_PROJECT_NAME", "")

    @property
    def sessions(self) -> DaemonSessions:
        """Connections to the daemon, one for each thread that needs one."""
        if self._sessions is None:
            api = self.ctx.api  # this starts the daemon if necessary, and negotiates the version
            from wherry.client.api import Api

            version = api.version
            headers = self.ctx.request_headers()
            self._sessions = DaemonSessions(
                lambda: Api(api.endpoint, version=version, headers=headers), self.parallel
            )
        return self._sessions

    @property
    def parallel(self) -> int:
        limit = self.flags.number("parallel")
        if not self.flags.given("parallel"):
            text = os.environ.get("COMPOSE_PARALLEL_LIMIT", "")
            if text:
                try:
                    limit = int(text)
                except ValueError:
                    raise Failure(
                        "COMPOSE_PARALLEL_LIMIT must be an integer (found: " + f'"{text}")'
                    ) from None
        if limit == 0 or limit < -1:
            raise Failure("--parallel must be -1, for no limit, or at least 1")
        return limit if limit > 0 else PARALLEL_MAX

    @property
    def compatible(self) -> bool:
        """Whether names have underscores, as those of docker-compose 1."""
        given = os.environ.get("COMPOSE_COMPATIBILITY", "").lower()
        return self.flags.on("compatibility") or given in ("1", "true", "t")

    def load(self, how: How | None = None, *, quiet: bool = False) -> Project:
        """Load the whole project; warnings are printed to stderr.

        :raises ComposeError: an error in a file; the text has its place.
        """
        from wherry.compose import loading

        separator = "_" if self.compatible else "-"
        project = loading.load(self.wanted, how or loading.USUAL, separator=separator)
        if not quiet:
            for warning in project.warnings:
                self.warn(warning)
        return project

    def project(
        self, services: Sequence[str] = (), *, dependencies: bool = True, quiet: bool = False
    ) -> Project:
        """The project with only the named services and their dependencies."""
        from wherry.compose import selecting

        project = self.load(quiet=quiet)
        selecting.choose(project, services, dependencies=dependencies)
        return project

    def maybe_project(self, services: Sequence[str] = ()) -> Project | None:
        """The project, for commands that only need its name; None if there is no file but a
        name was given."""
        try:
            return self.project(services, dependencies=False, quiet=True)
        except ComposeError as e:
            from wherry.compose.finding import NOT_FOUND

            if e.message == NOT_FOUND and self.given_name:
                return None
            raise

    def name(self) -> str:
        """Only the project's name."""
        if self.given_name and not self.flags.many("file"):
            from wherry.compose.finding import normalised

            if self.given_name == normalised(self.given_name):
                return self.given_name
        from wherry.compose import naming

        return naming.quick(self.wanted)

    def warn(self, text: str) -> None:
        self.ctx.complain(f"WARNING: {text}")

    def tell(self, text: str) -> None:
        """Say what is going on."""
        self._tell(text)

    def tell_by(self, tell: Callable[[str], None]) -> None:
        """From now on messages are printed by ``tell``, which knows what else is on the screen."""
        self._tell = tell

    def display(self, title: str = "") -> Display:
        from wherry.cli.composing.display import choose

        return choose(*self._modes, dry_run=self.dry_run, title=title)

    def report(self, display: Display) -> ProjectReporter:
        from wherry.compose.reporting import ProjectReporter

        return ProjectReporter(display.say, self.warn, self.confirm)

    def confirm(self, question: str) -> bool:
        """Ask on the terminal; without one the answer is no."""
        from wherry.cli.console import confirm, on_terminal

        return on_terminal(0) and confirm(question)

    @property
    def timeout(self) -> int | None:
        """``--timeout`` in seconds; None: each container's own."""
        return self.options.number("timeout") if self.options.given("timeout") else None

    def containers(
        self,
        services: Sequence[str] = (),
        *,
        all: bool = True,
        oneoff: bool | None = False,
        project: str = "",
    ) -> list[ProjectContainer]:
        """The project's containers. All named services must exist.

        :raises ComposeError: there is no such service.
        """
        from wherry.compose import state

        with self.sessions.lend() as api:
            found = state.of_project(api, project or self.name(), all=all, oneoff=oneoff)
        if not services:
            return found
        known = {one.service for one in found}
        missing = [name for name in services if name not in known]
        if missing:
            loaded = self.maybe_project()
            for name in missing:
                if loaded is None or name not in loaded.all_services:
                    raise ComposeError(f"no such service: {name}")
        return [one for one in found if one.service in services]

    def one_container(self, service: str, index: int = 0, *, runs: bool = True) -> ProjectContainer:
        """A service's container by its number; the first one if no number is given.

        :raises ComposeError: there is none.
        """
        found = self.containers([service], all=not runs)
        if index:
            found = [one for one in found if one.number == index]
        if not found:
            more = f" container #{index}" if index else ""
            raise ComposeError(
                f'service "{service}" is not running{more}' if runs else f"no container for {service}{more}"
            )
        return found[0]

    def __enter__(self) -> ComposeSession:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        if self._sessions is not None:
            self._sessions.close()
