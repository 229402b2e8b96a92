"""The actions of ``watch`` after changes: copy files, restart, run commands, rebuild."""

from __future__ import annotations

import threading

from wherry.cli.command import Failure
from wherry.cli.composing.converging import converge
from wherry.client import archives, containers
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from wherry.cli.composing.session import ComposeSession
    from wherry.client.api import Api
    from wherry.compose.project import Project
    from wherry.compose.state import ProjectContainer
    from wherry.compose.watching import ChangedFile, Trigger


def triggers_of(project: Project, names: Sequence[str]) -> list[Trigger]:
    """The watched paths of these services. :raises Failure: there are none, or a rebuild is asked for an
    image without a build."""
    from wherry.compose import watching

    found = watching.triggers(project, names)
    if not found:
        text = "none of the selected services is configured for watch: give develop.watch in the file"
        raise Failure(text)
    for one in found:
        if one.action == "rebuild" and not project.services[one.service].get("build"):
            raise Failure(f"can't watch service {one.service}: rebuild needs a build context")
    return found


def begin(session: ComposeSession, project: Project, found: Sequence[Trigger]) -> threading.Event:
    """Watch in the background. :returns: set it to end the watch; otherwise it ends with this process."""
    stop = threading.Event()
    threading.Thread(target=loop, args=(session, project, found), kwargs={"stop": stop}, daemon=True).start()
    return stop


def loop(
    session: ComposeSession,
    project: Project,
    found: Sequence[Trigger],
    *,
    quiet: bool = False,
    prune: bool = True,
    stop: threading.Event | None = None,
) -> None:
    """Scan for changes and act on them, until an interrupt, or until ``stop`` is set."""
    from wherry.compose.watching import EVERY

    for one in found:
        if one.rule.get("initial_sync") and "sync" in one.action:
            sync(session, one, one.everything())
    session.tell("Watch enabled")
    over = stop or threading.Event()
    while not over.wait(EVERY):
        rebuilt: set[str] = set()
        for one in found:
            changes = one.changes()
            if not changes or one.service in rebuilt:
                continue
            try:
                if one.action == "rebuild":
                    rebuilt.add(one.service)
                    _rebuild(session, project, one, changes, quiet=quiet, prune=prune)
                else:
                    _apply(session, project, one, changes)
            except (WherryError, Failure) as e:
                text = e.text if isinstance(e, Failure) else e.message
                session.tell(f"service {one.service}: {text}")


def _apply(
    session: ComposeSession, project: Project, trigger: Trigger, changes: Sequence[ChangedFile]
) -> None:
    from wherry.compose import running

    if "sync" in trigger.action:
        sync(session, trigger, changes)
    if trigger.action == "sync+exec" and trigger.rule.get("exec"):
        with session.sessions.lend() as api:
            for container in _running(session, trigger):
                running.run_hook(api, container, trigger.rule["exec"], "exec", _shown(session))
    if trigger.action in ("restart", "sync+restart"):
        with session.sessions.lend() as api:
            for container in _running(session, trigger):
                containers.restart(api, container.id)
        session.tell(f'service(s) ["{trigger.service}"] restarted')


def _shown(session: ComposeSession) -> Callable[[str, bytes], None]:
    def output(name: str, data: bytes) -> None:
        for line in data.decode("utf-8", "replace").splitlines():
            session.ctx.line(f"{name} | {line}")

    return output


def _running(session: ComposeSession, trigger: Trigger) -> list[ProjectContainer]:
    return session.containers([trigger.service], all=False)


def sync(session: ComposeSession, trigger: Trigger, changes: Sequence[ChangedFile]) -> None:
    count = len(changes)
    found = _running(session, trigger)
    noun = "change was" if count == 1 else "changes were"
    session.tell(f'Syncing service "{trigger.service}" after {count} {noun} detected')
    with session.sessions.lend() as api:
        for container in found:
            for change in changes:
                if not change.gone:
                    _put(api, container, change)
            _remove(api, container, [change.inside for change in changes if change.gone])


def _put(api: Api, container: ProjectContainer, change: ChangedFile) -> None:
    from wherry.client.pack import Packer

    try:
        pieces: Iterable[bytes] = Packer(change.path, change.inside.lstrip("/"), follow=False)
        archives.put(api, containers.path(container.id), "/", pieces)
    except FileNotFoundError:
        return  # it was removed again; the next scan reports that


def _remove(api: Api, container: ProjectContainer, paths: Sequence[str]) -> None:
    from wherry.client import exec as execs

    if paths:
        body = {"Cmd": ["rm", "-rf", "--", *paths], "User": "0", "AttachStdout": True, "AttachStderr": True}
        with execs.start(api, execs.create(api, container.id, body)) as stream:
            while stream.stream.recv(1 << 16):
                pass


def _rebuild(
    session: ComposeSession,
    project: Project,
    trigger: Trigger,
    changes: Sequence[ChangedFile],
    *,
    quiet: bool,
    prune: bool,
) -> None:
    """Build the service's image, and replace its containers."""
    from wherry.cli.composing import building
    from wherry.client import images
    from wherry.compose import running
    from wherry.compose.buildspec import BuildChoices

    count = len(changes)
    noun = "change was" if count == 1 else "changes were"
    session.tell(f'Rebuilding service(s) ["{trigger.service}"] after {count} {noun} detected...')
    building.build(session, project, [trigger.service], BuildChoices(quiet=quiet))
    session.tell(f'service(s) ["{trigger.service}"] successfully built')
    with session.display() as display:
        existing = converge(session, project, [trigger.service], display.say)
        running.start(session.sessions, project, existing, session.report(display))
    if prune:
        label = f"com.docker.compose.project={project.name}"
        images.prune(session.ctx.api, {"dangling": ["true"], "label": [label]})
