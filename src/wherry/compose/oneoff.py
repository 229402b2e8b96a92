"""``run``: one container of a service beside its others, with another command."""

from __future__ import annotations

from wherry.client import archives, containers
from wherry.compose import (
    attachment,
    bodies,
    labels,
    mounts,
    pulling,
    resources,
    running,
    selecting,
    state,
)
from wherry.compose.converge import ConvergePlan, Converger
from wherry.compose.places import ComposeError, Map, copied, mapping, sequence
from wherry.compose.work import in_order, run_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from wherry.client.api import Api
    from wherry.compose.project import Project
    from wherry.compose.pulling import ProjectImages
    from wherry.compose.reporting import ProjectReporter
    from wherry.compose.work import DaemonSessions

    Object = dict[str, Any]


class OneOffChanges:
    """The command line's changes to the service, for this container only.

    ``ports`` None keeps the service's; a variable that is None in ``environment`` is removed.
    """

    def __init__(
        self,
        *,
        command: Sequence[str] | None,
        tty: bool,
        interactive: bool,
        name: str = "",
        entrypoint: Sequence[str] | None = None,
        environment: Mapping[str, str | None] | None = None,
        labels: Mapping[str, str] | None = None,
        ports: Sequence[Any] | None = (),
        volumes: Sequence[Any] = (),
        cap_add: Sequence[str] = (),
        cap_drop: Sequence[str] = (),
        user: str = "",
        workdir: str = "",
        aliases: bool = False,
        detach: bool = False,
        auto_remove: bool = False,
    ) -> None:
        self.command, self.tty, self.interactive = command, tty, interactive
        self.name, self.entrypoint = name, entrypoint
        self.environment, self.labels = environment or {}, labels or {}
        self.ports, self.volumes = ports, volumes
        self.cap_add, self.cap_drop = cap_add, cap_drop
        self.user, self.workdir = user, workdir
        self.aliases, self.detach, self.auto_remove = aliases, detach, auto_remove


def prepare(
    sessions: DaemonSessions,
    project: Project,
    name: str,
    changes: OneOffChanges,
    images: ProjectImages,
    report: ProjectReporter,
    *,
    dependencies: bool,
    dry_run: bool,
) -> str:
    """Start what the service needs, and create the container. :returns: its id.

    :raises WherryError: an image is missing, or a container cannot be created.
    """
    identities = pulling.ensure(
        sessions, project, project.services if dependencies else [name], images, report, dry_run=dry_run
    )
    selecting.prune_resources(project)
    with sessions.lend() as api:
        found = state.of_project(api, project.name)
    _resources(sessions, project, report, found, dry_run=dry_run)
    converger = Converger(project, found, identities, ConvergePlan(dry_run=dry_run), report)
    others = [one for one in project.services if one != name] if dependencies else []
    in_order(sessions, {one: list(project.dependencies(one)) for one in others}, converger.converge)
    service = converger.service(name)
    with sessions.lend() as api:
        if others and not dry_run:
            existing = {one: converger.containers.get(one, []) for one in others}
            kept = {one: project.services[one] for one in others}
            running.start(sessions, project.with_services(kept), existing, report)
            running.await_dependencies(sessions, api, project, name, existing, report)
        return _make(
            api, project, name, changed(service, changes), changes, converger, report, dry_run=dry_run
        )


def _resources(
    sessions: DaemonSessions,
    project: Project,
    report: ProjectReporter,
    found: Sequence[state.ProjectContainer],
    *,
    dry_run: bool,
) -> None:
    def network(key: str) -> Callable[[Api], None]:
        return lambda api: resources.ensure_network(api, project, key, report, found, dry_run=dry_run)

    def volume(key: str) -> Callable[[Api], None]:
        return lambda api: resources.ensure_volume(
            api, project, key, report, found, yes=False, dry_run=dry_run
        )

    run_all(sessions, [network(key) for key in sorted(project.networks)])
    run_all(sessions, [volume(key) for key in sorted(project.volumes)])


def changed(service: Map, changes: OneOffChanges) -> Map:
    """The service with the changes for this container."""
    made: Map = copied(service)
    at = made.at
    if changes.entrypoint is not None:
        made["entrypoint"] = sequence(list(changes.entrypoint), at)
        made["command"] = sequence([], at)
    if changes.command:
        made["command"] = sequence(list(changes.command), at)
    made["tty"], made["stdin_open"] = changes.tty, changes.interactive
    if changes.environment:
        made["environment"] = mapping({**(made.get("environment") or {}), **changes.environment}, at)
    if changes.labels:
        made["labels"] = mapping({**(made.get("labels") or {}), **changes.labels}, at)
    if changes.ports is not None:
        made["ports"] = sequence(list(changes.ports), at)
    if changes.volumes:
        targets = {one["target"] for one in changes.volumes}
        kept = [one for one in made.get("volumes") or () if one.get("target") not in targets]
        made["volumes"] = sequence([*kept, *changes.volumes], at)
    for key, more in (("cap_add", changes.cap_add), ("cap_drop", changes.cap_drop)):
        if more:
            other = "cap_drop" if key == "cap_add" else "cap_add"
            made[key] = sequence(list(dict.fromkeys([*(made.get(key) or ()), *more])), at)
            made[other] = sequence([one for one in made.get(other) or () if one not in more], at)
    for key, value in (("user", changes.user), ("working_dir", changes.workdir)):
        if value:
            made[key] = value
    for key in ("container_name", "restart"):
        made.pop(key, None)
    return made


def _make(
    api: Api,
    project: Project,
    name: str,
    service: Map,
    changes: OneOffChanges,
    converger: Converger,
    report: ProjectReporter,
    *,
    dry_run: bool,
) -> str:
    import secrets

    slug = secrets.token_hex(6)
    shown = changes.name or project.separator.join((project.name, name, "run", slug))
    own = bodies.service_labels(project, name, service, 1, converger.hash_of(service))
    own |= {labels.ONEOFF: "True", labels.SLUG: slug}
    if converger.images.get(name):
        own[labels.IMAGE] = converger.images[name]
    report.container(shown, "Creating")
    endpoints = attachment.endpoints(
        project, name, service, shown, converger.links(service), aliases=changes.aliases
    )
    body = bodies.container(
        project,
        name,
        service,
        bodies.OwnParts(
            labels=own,
            mounts=mounts.mounts_of(project, service, {}),
            mode=attachment.mode_of(project, service, converger.resolve),
            endpoints={} if service.get("network_mode") else endpoints,
        ),
        resolve=converger.resolve,
        attach_stdin=changes.interactive and not changes.detach,
        auto_remove=changes.auto_remove,
    )
    if dry_run:
        report.container(shown, "Created")
        return shown
    answer = containers.create(api, body, name=shown, platform=service.get("platform") or "")
    identifier = str(answer["Id"])
    for warning in answer.get("Warnings") or ():
        report.warn(f"{name}: {warning}")
    files = mounts.files_of(project, service)
    if files:
        from wherry.compose.archive import archive

        try:
            archives.put(api, containers.path(identifier), "/", [archive(files)])
        except BaseException:
            containers.remove(api, identifier, force=True)
            raise
    report.container(shown, "Created")
    return identifier


def volume_of(text: str, directory: str) -> Any:
    """Convert ``-v`` into the form of a service's volumes. :raises ComposeError: malformed."""
    from wherry.compose import paths, shorthand
    from wherry.compose.places import NOWHERE

    made = shorthand.volume(text, NOWHERE, "--volume")
    if made["type"] == "bind":
        made["source"] = paths.absolute(made["source"], directory)
    return made


def ports_of(text: str) -> list[Any]:
    from wherry.compose import shorthand
    from wherry.compose.places import NOWHERE

    return list(shorthand.port(text, NOWHERE, "--publish"))


__all__ = ["ComposeError", "OneOffChanges", "changed", "ports_of", "prepare", "volume_of"]
