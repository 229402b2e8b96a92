"""Start and stop the containers of a project in the order of their dependencies."""

from __future__ import annotations

from wherry.client import containers
from wherry.client import exec as execs
from wherry.compose import waiting
from wherry.compose.places import ComposeError
from wherry.compose.work import in_order, run_all
from wherry.errors import Conflict, NotFound, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from wherry.client.api import Api
    from wherry.compose.project import Project
    from wherry.compose.reporting import ProjectReporter
    from wherry.compose.state import ProjectContainer
    from wherry.compose.work import DaemonSessions

_WAITED = {waiting.HEALTHY: "Healthy", waiting.COMPLETED: "Exited", waiting.STARTED: "Started"}


def start(
    sessions: DaemonSessions,
    project: Project,
    found: Mapping[str, Sequence[ProjectContainer]],
    report: ProjectReporter,
    *,
    dry_run: bool = False,
    output: Callable[[str, bytes], None] | None = None,
) -> None:
    """Start every service's containers; each waits until its dependencies meet their conditions.

    :param output: receives the output of ``post_start`` hooks.
    :raises WherryError: one does not start, or a dependency does not meet its condition.
    """

    def one(api: Api, name: str) -> None:
        service = project.services[name]
        waits = [c for c in found.get(name, ()) if not c.runs]
        if not waits:
            return
        if not dry_run:
            await_dependencies(sessions, api, project, name, found, report)
        for container in waits:
            _start(api, name, service, container, report, dry_run=dry_run, output=output)

    in_order(sessions, {name: list(project.dependencies(name)) for name in project.services}, one)


def await_dependencies(
    sessions: DaemonSessions,
    api: Api,
    project: Project,
    name: str,
    found: Mapping[str, Sequence[ProjectContainer]],
    report: ProjectReporter,
) -> None:
    for other, how in project.dependencies(name).items():
        if how["condition"] == waiting.STARTED:
            continue
        if other not in project.services or not project.replicas(other):
            continue
        existing = found.get(other, ())
        if not existing and not how["required"]:
            continue
        if not existing:
            raise ComposeError(f"{name} is missing dependency {other}")
        for container in existing:
            report.container(container.name, "Waiting")
            try:
                word = waiting.wait_for(sessions.lend, api, container.id, how["condition"])
            except waiting.Unmet as e:
                if not how["required"]:
                    report.container(container.name, "Skipped", e.message)
                    report.warn(f'optional dependency "{other}" failed to start: {e.message}')
                    continue
                report.container(container.name, "Error", f"dependency {other} failed to start")
                if how["condition"] == waiting.COMPLETED:
                    code = e.message.rpartition("(")[2].rstrip(")")
                    raise ComposeError(f'service "{other}" didn\'t complete successfully: exit {code}') from e
                raise ComposeError(f"dependency failed to start: {e.message}") from e
            report.container(container.name, word)


def _start(
    api: Api,
    name: str,
    service: Any,
    container: ProjectContainer,
    report: ProjectReporter,
    *,
    dry_run: bool,
    output: Callable[[str, bytes], None] | None,
) -> None:
    report.container(container.name, "Starting")
    if not dry_run:
        try:
            containers.start(api, container.id)
        except WherryError as e:
            report.container(container.name, "Error", e.message)
            raise type(e)(f"service {name}: {e.message.removeprefix('Error response from daemon: ')}") from e
        for hook in service.get("post_start") or ():
            run_hook(api, container, hook, "post_start", output)
    report.container(container.name, "Started")


def run_hook(
    api: Api, container: ProjectContainer, hook: Any, kind: str, output: Callable[[str, bytes], None] | None
) -> None:
    """Run a command in a running container, and wait for its end.

    :raises ComposeError: it failed.
    """
    from wherry.client.streams import Demultiplexer
    from wherry.compose.bodies import environment

    identifier = execs.create(
        api,
        container.id,
        {
            "Cmd": list(hook["command"] or ()),
            "User": hook.get("user") or "",
            "Privileged": bool(hook.get("privileged")),
            "WorkingDir": hook.get("working_dir") or "",
            "Env": environment(hook.get("environment") or {}),
            "AttachStdout": True,
            "AttachStderr": True,
        },
    )

    def take(piece: memoryview) -> None:
        if output is not None:
            output(container.name, bytes(piece))

    sink = Demultiplexer(take, take)
    with execs.start(api, identifier) as stream:
        sink.feed(stream.early)
        while piece := stream.stream.recv(1 << 16):
            sink.feed(piece)
    code = int(execs.inspect(api, identifier).get("ExitCode") or 0)
    if code:
        raise ComposeError(f"{container.service} {kind} hook exited with status {code}")


def stop(
    sessions: DaemonSessions,
    project: Project,
    found: Mapping[str, Sequence[ProjectContainer]],
    report: ProjectReporter,
    *,
    timeout: int | None = None,
    dry_run: bool = False,
    output: Callable[[str, bytes], None] | None = None,
) -> None:
    """Stop every service's containers, dependents before their dependencies."""

    def one(api: Api, name: str) -> None:
        run_all(
            sessions,
            [
                _stopper(c, project.all_services.get(name), report, timeout, dry_run, output)
                for c in found[name]
            ],
        )

    in_order(sessions, reversed_needs(project, found), one)


def reversed_needs(project: Project, found: Mapping[str, Sequence[ProjectContainer]]) -> dict[str, list[str]]:
    """Each service with the services that must be stopped before it: its dependents."""
    needs: dict[str, list[str]] = {name: [] for name in found}
    for name in found:
        if name in project.all_services:
            for other in project.dependencies(name):
                if other in needs:
                    needs[other].append(name)
    return needs


def _stopper(
    container: ProjectContainer,
    service: Any,
    report: ProjectReporter,
    timeout: int | None,
    dry_run: bool,
    output: Callable[[str, bytes], None] | None,
) -> Callable[[Api], None]:
    return lambda api: stop_one(
        api, container, service, report, timeout=timeout, dry_run=dry_run, output=output
    )


def stop_one(
    api: Api,
    container: ProjectContainer,
    service: Any,
    report: ProjectReporter,
    *,
    timeout: int | None,
    dry_run: bool = False,
    output: Callable[[str, bytes], None] | None = None,
) -> None:
    report.container(container.name, "Stopping")
    if not dry_run:
        try:
            if container.state == "running":
                for hook in (service or {}).get("pre_stop") or ():
                    run_hook(api, container, hook, "pre_stop", output)
            containers.stop(api, container.id, timeout=timeout)
        except NotFound:
            pass
        except WherryError as e:
            report.container(container.name, "Error", e.message)
            raise
    report.container(container.name, "Stopped")


def remove_one(
    api: Api, container: ProjectContainer, report: ProjectReporter, *, volumes: bool, dry_run: bool = False
) -> None:
    report.container(container.name, "Removing")
    if not dry_run:
        try:
            containers.remove(api, container.id, force=True, volumes=volumes)
        except (NotFound, Conflict) as e:
            if isinstance(e, Conflict) and "already in progress" not in e.message:
                report.container(container.name, "Error", e.message)
                raise
        except WherryError as e:
            report.container(container.name, "Error", e.message)
            raise
    report.container(container.name, "Removed")


def wait_until_up(
    sessions: DaemonSessions,
    project: Project,
    found: Mapping[str, Sequence[ProjectContainer]],
    report: ProjectReporter,
    *,
    deadline: float | None,
) -> None:
    """Wait until every container runs, and is healthy if it has a health check; or has completed, if others
    wait for that.

    :raises ComposeError: one has ended or is unhealthy, or the deadline has passed.
    """

    finite = {
        other
        for name in project.services
        for other, how in project.dependencies(name).items()
        if how["condition"] == waiting.COMPLETED
    }

    def task(container: ProjectContainer) -> Callable[[Api], None]:
        condition = waiting.COMPLETED if container.service in finite else waiting.RUNNING_OR_HEALTHY

        def work(api: Api) -> None:
            report.container(container.name, "Waiting")
            try:
                word = waiting.wait_for(sessions.lend, api, container.id, condition, deadline)
            except waiting.TimedOut:
                report.container(container.name, "Error", "timed out")
                raise ComposeError(f"application not healthy after {_wait_text(deadline)}") from None
            except WherryError as e:
                report.container(container.name, "Error", e.message)
                raise
            report.container(container.name, "Healthy" if word == "Started" else word)

        return work

    run_all(sessions, [task(one) for some in found.values() for one in some])


def _wait_text(deadline: float | None) -> str:
    return "the time given by --wait-timeout" if deadline is not None else "a while"
