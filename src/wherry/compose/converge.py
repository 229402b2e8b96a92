"""Change the running containers to match the file: decide which stay, and which are replaced, created or
removed.

A container stays if its labels have the service's configuration hash and the image's identity, and it is on
the service's networks. A replacement is first created under another name, takes over the anonymous volumes,
and is renamed when the old container has been removed. So if the client is killed in between, the next ``up``
can finish the project.
"""

from __future__ import annotations

import threading

from wherry.client import archives, containers, secrets
from wherry.compose import attachment, bodies, engine, hashing, labels, mounts
from wherry.compose.defaults import with_environment
from wherry.compose.places import ComposeError, Map
from wherry.compose.state import ProjectContainer, Replacement, by_service
from wherry.errors import Conflict, NotFound, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wherry.client.api import Api
    from wherry.compose.project import Project
    from wherry.compose.reporting import ProjectReporter

    Object = dict[str, Any]

DIVERGED, FORCE, NEVER = "diverged", "force", "never"


class ConvergePlan:
    """How far a project is changed."""

    def __init__(
        self,
        *,
        recreate: str = DIVERGED,
        recreate_dependencies: str = DIVERGED,
        renew_volumes: bool = False,
        timeout: int | None = None,
        dry_run: bool = False,
        rolling: Callable[[Project, str], None] | None = None,
        asked: Sequence[str] = (),
    ) -> None:
        self.recreate, self.recreate_dependencies = recreate, recreate_dependencies
        self.renew_volumes, self.timeout, self.dry_run = renew_volumes, timeout, dry_run
        self.rolling = rolling
        """With ``--rolling``: refuses a service of which two containers cannot run beside each other."""
        self.asked = frozenset(asked)

    def policy(self, service: str) -> str:
        return self.recreate if not self.asked or service in self.asked else self.recreate_dependencies


class Converger:
    """Changes the services of one project to match the file, one at a time or in parallel."""

    def __init__(
        self,
        project: Project,
        found: Sequence[ProjectContainer],
        images: dict[str, str],
        plan: ConvergePlan,
        report: ProjectReporter,
    ) -> None:
        self.project, self.images, self.plan, self.report = project, images, plan, report
        self._lock = threading.Lock()
        self.containers: dict[str, list[ProjectContainer]] = by_service(found)
        """The containers of each service; updated as they change."""
        self.rolling: dict[str, list[Replacement]] = {}
        """What is left for ``rolling.roll``, by service."""
        self._known_secrets: set[str] = set()
        self._resolved = {name: with_environment(project, one) for name, one in project.services.items()}

    def service(self, name: str) -> Any:
        """A service with its environment resolved."""
        return self._resolved[name]

    def converge(self, api: Api, name: str) -> None:
        """:raises WherryError: a container cannot be made or removed."""
        service = self.service(name)
        if service.get("provider"):
            raise ComposeError(f"services.{name}.provider is not supported: wherry runs no providers")
        wanted = self.project.replicas(name)
        existing = list(self.containers.get(name, ()))
        diverged = {one.id for one in existing if self._differs(name, service, one)}
        # Remove outdated containers first, then those with the highest numbers.
        existing.sort(key=lambda one: (one.id in diverged, one.number))
        pairs = self._interrupted(api, name, existing, diverged)
        existing = [one for one in existing if not any(one in (pair.old, pair.new) for pair in pairs)]
        wanted = max(0, wanted - len(pairs))
        kept, excess = existing[:wanted], existing[wanted:]
        for container in excess:
            self.remove(api, container)
        for container in sorted(kept, key=lambda one: one.number):
            if container.id in diverged:
                if self.plan.rolling and container.runs:
                    self.plan.rolling(self.project, name)
                    pairs.append(Replacement(container))
                else:
                    self._recreate(api, name, container)
                continue
            self._finish_name(api, name, container)
            if container.runs:
                self.report.container(container.name, "Running")
        self.rolling[name] = pairs
        taken = {one.number for one in kept} | {pair.old.number for pair in pairs}
        number = 0
        for _ in range(wanted - len(kept)):
            number = next(n for n in range(number + 1, number + wanted + len(taken) + 2) if n not in taken)
            self._create(api, name, service, number)

    def _interrupted(
        self, api: Api, name: str, existing: Sequence[ProjectContainer], diverged: set[str]
    ) -> list[Replacement]:
        """What an interrupted rolling replacement left: a new container beside an old one that runs.

        ``up --rolling`` goes on with these. Otherwise the new one takes over now, so that the old one can go.
        """
        pairs = []
        for new in existing:
            old = next((one for one in existing if self._stands_in(name, new, one)), None)
            if old is None or new.id in diverged:
                continue
            if self.plan.rolling:
                pairs.append(Replacement(old, new))
            elif new.runs and not self.plan.dry_run:
                containers.take_over(api, new.id, old.id)
        return pairs

    def _stands_in(self, name: str, new: ProjectContainer, old: ProjectContainer) -> bool:
        """Whether ``new`` was made to replace ``old``, which runs."""
        if new is old or not old.runs or new.labels.get(labels.REPLACES) != old.name:
            return False
        return new.name == self.temporary_name(name, old)

    def _finish_name(self, api: Api, name: str, container: ProjectContainer) -> None:
        """Rename a replacement that an earlier, interrupted run created but did not rename."""
        shown = self.container_name(name, container.number)
        if labels.REPLACES not in container.labels or not container.name.endswith(f"_{shown}"):
            return
        if not self.plan.dry_run:
            containers.rename(api, container.id, shown)
        container.name = shown

    def _differs(self, name: str, service: Any, container: ProjectContainer) -> bool:
        policy = self.plan.policy(name)
        if policy == NEVER:
            return False
        if policy == FORCE:
            return True
        if container.labels.get(labels.CONFIG_HASH) != self.hash_of(service):
            return True
        image = self.images.get(name)
        recorded = container.labels.get(labels.IMAGE)
        if image and recorded and recorded != image:
            return True
        return self._networks_differ(service, container)

    def _networks_differ(self, service: Any, container: ProjectContainer) -> bool:
        if service.get("network_mode"):
            return False
        attached = (container.about.get("NetworkSettings") or {}).get("Networks") or {}
        wanted = {self.project.resource_name("networks", key) for key in service.get("networks") or ()}
        return bool(wanted - set(attached))

    # one container

    def container_name(self, name: str, number: int) -> str:
        given = self.service(name).get("container_name")
        separator = self.project.separator
        return str(given or separator.join((self.project.name, name, str(number))))

    def _create(self, api: Api, name: str, service: Any, number: int) -> ProjectContainer:
        shown = self.container_name(name, number)
        self.report.container(shown, "Creating")
        made = self.make(api, name, service, number, shown)
        self.report.container(shown, "Created")
        with self._lock:
            self.containers.setdefault(name, []).append(made)
        return made

    def body(
        self,
        name: str,
        service: Any,
        number: int,
        shown: str,
        *,
        replaces: str = "",
        inherited: dict[str, str] | None = None,
    ) -> Object:
        """The request for one container."""
        own = bodies.service_labels(self.project, name, service, number, self.hash_of(service))
        if self.images.get(name):
            own[labels.IMAGE] = self.images[name]
        if replaces:
            own[labels.REPLACES] = replaces
        endpoints = attachment.endpoints(self.project, name, service, shown, self.links(service))
        return bodies.container(
            self.project,
            name,
            service,
            bodies.OwnParts(
                labels=own,
                mounts=mounts.mounts_of(self.project, service, inherited or {}),
                mode=attachment.mode_of(self.project, service, self.resolve),
                endpoints={} if service.get("network_mode") else endpoints,
            ),
            resolve=self.resolve,
        )

    def make(
        self,
        api: Api,
        name: str,
        service: Any,
        number: int,
        shown: str,
        *,
        temporary: str = "",
        replaces: str = "",
        inherited: dict[str, str] | None = None,
    ) -> ProjectContainer:
        """Create one container; if that fails, remove it again."""
        body = self.body(name, service, number, shown, replaces=replaces, inherited=inherited)
        own = body["Labels"]
        files = mounts.files_of(self.project, service)
        for one in body["HostConfig"].get("Secrets") or ():
            self._check_secret(api, name, one["Name"])
        if self.plan.dry_run:
            return ProjectContainer({"Id": "", "Names": [f"/{shown}"], "Labels": own, "State": "created"})
        try:
            answer = containers.create(
                api, body, name=temporary or shown, platform=service.get("platform") or ""
            )
        except WherryError as e:
            self.report.container(shown, "Error", e.message)
            raise _named(e, name) from e
        for warning in answer.get("Warnings") or ():
            self.report.warn(f"{name}: {warning}")
        identifier = str(answer["Id"])
        _put_files(api, identifier, files)
        about = {
            "Id": identifier,
            "Names": [f"/{shown}"],
            "Labels": own,
            "State": "created",
        }
        return ProjectContainer(about)

    def _check_secret(self, api: Api, service: str, secret: str) -> None:
        """:raises ComposeError: the daemon keeps no such secret."""
        if secret in self._known_secrets:
            return
        engine.require_wherry(api, f"service {service}: external secret {secret}")
        try:
            secrets.inspect(api, secret)
        except NotFound:
            raise ComposeError(
                f"service {service}: external secret {secret} not found; "
                "create it with 'wherry secret create'"
            ) from None
        self._known_secrets.add(secret)

    def resolve(self, service: str) -> str:
        """The id of a container of a service, for containers that share its namespaces.

        :raises ComposeError: it has none.
        """
        with self._lock:
            found = self.containers.get(service) or []
        if not found and self.plan.dry_run:
            return self.container_name(service, 1)
        if not found:
            raise ComposeError(f"cannot share with service {service}: it has no container")
        first = min(found, key=lambda one: one.name)
        return first.id or first.name

    def hash_of(self, service: Any) -> str:
        """The service's hash, in which services whose namespaces or volumes it shares are replaced by their
        containers: if one of those is replaced, so is this one.
        """
        shared: Map = Map(service.at)
        shared.update(service)
        for key in ("network_mode", "ipc", "pid"):
            if (service.get(key) or "").startswith("service:"):
                shared[key] = attachment.namespace(service[key], self.resolve)
        if service.get("volumes_from"):
            # Docker's plugin omits the mode here.
            shared["volumes_from"] = [
                one.split(":")[1] if one.startswith("container:") else self.resolve(one.partition(":")[0])
                for one in service["volumes_from"]
            ]
        return hashing.of_service(shared)

    def links(self, service: Any) -> list[str]:
        def of(name: str) -> list[tuple[str, str]]:
            return [(one.name, one.short_name(self.project.name)) for one in self.containers.get(name, ())]

        return attachment.links_of(service, of)

    def shown_name(self, name: str, old: ProjectContainer) -> str:
        """The name that a container has in the end, or that its replacement will have."""
        given = self.service(name).get("container_name")
        if not given and old.labels.get(labels.REPLACES):
            return self.container_name(name, old.number)  # an earlier run was cut short before the name
        return str(given or old.name)

    def temporary_name(self, name: str, old: ProjectContainer) -> str:
        """The name of a replacement until the old container is gone."""
        return f"{old.id[:12]}_{self.shown_name(name, old)}"

    def make_replacement(self, api: Api, name: str, old: ProjectContainer) -> ProjectContainer:
        """Create the container that is to replace ``old``, under a name of its own for the time being."""
        service, shown = self.service(name), self.shown_name(name, old)
        self.report.container(shown, "Recreate")
        inherited = {} if self.plan.renew_volumes else _anonymous(old)
        temporary = self.temporary_name(name, old)

        def make() -> ProjectContainer:
            return self.make(
                api,
                name,
                service,
                old.number or 1,
                shown,
                temporary=temporary,
                replaces=old.name,
                inherited=inherited,
            )

        try:
            return make()
        except Conflict:
            # A container with that name is a leftover of an interrupted run.
            containers.remove(api, temporary, force=True)
            return make()

    def adopt(self, api: Api, name: str, old: ProjectContainer, new: ProjectContainer) -> None:
        """``new`` has replaced ``old``, which is gone: give it its name."""
        new.name = self.shown_name(name, old)
        containers.rename(api, new.id, new.name)
        with self._lock:
            held = self.containers[name]
            held[:] = [new if one is old else one for one in held if one is not new]

    def _recreate(self, api: Api, name: str, old: ProjectContainer) -> None:
        shown = self.shown_name(name, old)
        new = self.make_replacement(api, name, old)
        if not self.plan.dry_run:
            timeout = self.plan.timeout
            try:
                containers.stop(api, old.id, timeout=timeout)
                containers.remove(api, old.id, force=True)
            except NotFound:
                pass
            containers.rename(api, new.id, shown)
        with self._lock:
            held = self.containers[name]
            held[held.index(old)] = new
        self.report.container(shown, "Recreated")

    def remove(self, api: Api, container: ProjectContainer) -> None:
        """Stop and remove a surplus container, or one whose service no longer exists."""
        timeout = self.plan.timeout
        if container.runs:
            self.report.container(container.name, "Stopping")
            if not self.plan.dry_run:
                containers.stop(api, container.id, timeout=timeout)
            self.report.container(container.name, "Stopped")
        self.report.container(container.name, "Removing")
        if not self.plan.dry_run:
            try:
                containers.remove(api, container.id, force=True)
            except NotFound:
                pass
        self.report.container(container.name, "Removed")
        with self._lock:
            held = self.containers.get(container.service, [])
            if container in held:
                held.remove(container)


def _named(error: WherryError, service: str) -> WherryError:
    """The same error with the container's name."""
    return type(error)(f"service {service}: {error.message.removeprefix('Error response from daemon: ')}")


def _anonymous(container: ProjectContainer) -> dict[str, str]:
    """Its anonymous volumes by their targets."""
    found = {}
    for mount in container.about.get("Mounts") or ():
        name = str(mount.get("Name") or "")
        if mount.get("Type") == "volume" and len(name) == 64 and all(c in "0123456789abcdef" for c in name):
            found[str(mount.get("Destination"))] = name
    return found


def _put_files(api: Api, identifier: str, files: Sequence[mounts.File]) -> None:
    """Copy secrets and configs into a new container; if that fails, remove the container."""
    if not files:
        return
    from wherry.compose.archive import archive

    try:
        archives.put(api, containers.path(identifier), "/", [archive(files)])
    except BaseException:
        containers.remove(api, identifier, force=True)
        raise
