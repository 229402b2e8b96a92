"""``down``: remove a project's containers and networks, and on request its volumes and images."""

from __future__ import annotations

from wherry.client import images, networks, volumes
from wherry.compose import labels, running, state, trash
from wherry.compose.project import Project, image_of
from wherry.compose.work import in_order, run_all
from wherry.errors import Conflict, Forbidden, NotFound, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wherry.client.api import Api
    from wherry.compose.reporting import ProjectReporter
    from wherry.compose.state import ProjectContainer
    from wherry.compose.work import DaemonSessions

    Object = dict[str, Any]


class DownPlan:
    """How much of a project is removed.

    ``services`` empty: all of them. ``from_file``: whether the project was read from a file; otherwise only
    its containers are known. ``rmi``: "", ``local`` or ``all``. ``timeout``: seconds; None: its service's.
    """

    def __init__(
        self,
        *,
        services: Sequence[str] = (),
        from_file: bool = True,
        remove_orphans: bool = False,
        with_volumes: bool = False,
        keep: bool = False,
        rmi: str = "",
        timeout: int | None = None,
        dry_run: bool = False,
    ) -> None:
        self.services, self.from_file, self.remove_orphans = services, from_file, remove_orphans
        self.with_volumes, self.rmi, self.timeout, self.dry_run = with_volumes, rmi, timeout, dry_run
        self.keep = keep
        self.kept: list[str] = []
        """Volumes that went into the trash."""


def down(sessions: DaemonSessions, project: Project, report: ProjectReporter, plan: DownPlan) -> None:
    """Stop and remove a project's containers, then its networks, then what else ``plan`` says.

    :raises WherryError: something of it cannot be removed.
    """
    services, from_file, dry_run = plan.services, plan.from_file, plan.dry_run
    with sessions.lend() as api:
        found = state.of_project(api, project.name, oneoff=None)
        attached = _project_networks(api, project)
    known = set(project.all_services)
    chosen = [one for one in found if not from_file or one.service in known or plan.remove_orphans]
    if services:
        chosen = [one for one in found if one.service in services]
    grouped = state.by_service(chosen)

    def one(api: Api, name: str) -> None:
        service = project.all_services.get(name)
        run_all(sessions, [_taker(c, service, report, plan) for c in grouped[name]])

    in_order(sessions, running.reversed_needs(project, grouped), one)
    tasks: list[Callable[[Api], None]] = []
    if not services:
        tasks += [_network_taker(project, network, report, dry_run) for network in attached]
        if plan.with_volumes:
            tasks += [_volume_taker(name, report, plan) for name in _volumes(sessions, project, from_file)]
    if plan.rmi:
        doomed = _images(project, chosen, plan.rmi, services)
        tasks += [_image_taker(name, report, dry_run) for name in doomed]
    if not found and not tasks and from_file:
        report.warn(f"No resource found to remove for project {project.name!r}.".replace("'", '"'))
    run_all(sessions, tasks)


def _taker(
    container: ProjectContainer, service: Any, report: ProjectReporter, plan: DownPlan
) -> Callable[[Api], None]:
    def work(api: Api) -> None:
        running.stop_one(api, container, service, report, timeout=plan.timeout, dry_run=plan.dry_run)
        running.remove_one(api, container, report, volumes=plan.with_volumes, dry_run=plan.dry_run)

    return work


def _project_networks(api: Api, project: Project) -> list[Object]:
    found = networks.listing(api, {"label": [f"{labels.PROJECT}={project.name}"]})
    external = {
        project.resource_name("networks", key) for key, one in project.networks.items() if one.get("external")
    }
    return [one for one in found if one.get("Name") not in external]


def _network_taker(
    project: Project, network: Object, report: ProjectReporter, dry_run: bool
) -> Callable[[Api], None]:
    name, identifier = str(network["Name"]), str(network["Id"])

    def work(api: Api) -> None:
        report.network(name, "Removing")
        try:
            if not dry_run:
                networks.remove(api, identifier)
        except NotFound:
            pass
        except (Conflict, Forbidden) as e:
            if "active endpoints" in e.message or "in use" in e.message.lower():
                report.network(name, "Warning", "Resource is still in use")
                return
            report.network(name, "Error", e.message)
            raise
        report.network(name, "Removed")

    return work


def _volumes(sessions: DaemonSessions, project: Project, from_file: bool) -> list[str]:
    if from_file:
        return [
            project.resource_name("volumes", key)
            for key, one in sorted(project.volumes.items())
            if not one.get("external")
        ]
    with sessions.lend() as api:
        listed = volumes.listing(api, {"label": [f"{labels.PROJECT}={project.name}"]}).get("Volumes") or []
    return sorted(name for one in listed if not trash.is_trashed(name := str(one["Name"])))


def _volume_taker(name: str, report: ProjectReporter, plan: DownPlan) -> Callable[[Api], None]:
    def work(api: Api) -> None:
        try:
            volumes.inspect(api, name)
        except NotFound:
            return
        report.volume(name, "Removing")
        try:
            if plan.dry_run:
                pass
            elif plan.keep and trash.put(api, name):
                plan.kept.append(name)
            else:
                volumes.remove(api, name, force=True)
        except NotFound:
            pass
        except Conflict:
            report.volume(name, "Warning", "Resource is still in use")
            return
        report.volume(name, "Removed")

    return work


def _images(
    project: Project,
    found: Sequence[ProjectContainer],
    rmi: str,
    services: Sequence[str],
) -> list[str]:
    """``local``: images of builds without an explicit name; ``all``: all images that services use."""
    names = [name for name in project.services if not services or name in services]
    if rmi == "all":
        chosen = {image_of(project, name) for name in names} | {str(one.about.get("Image")) for one in found}
    else:
        chosen = {image_of(project, name) for name in names if not project.services[name].get("image")}
    return sorted(one for one in chosen if one and not one.startswith("sha256:"))


def _image_taker(name: str, report: ProjectReporter, dry_run: bool) -> Callable[[Api], None]:
    def work(api: Api) -> None:
        try:
            images.inspect(api, name)
        except NotFound:
            return
        report.say(f"Image {name}", "Removing")
        try:
            if not dry_run:
                images.remove(api, name)
        except NotFound:
            report.say(f"Image {name}", "Warning", "No resource found to remove")
            return
        except Conflict:
            report.say(f"Image {name}", "Warning", "Resource is still in use")
            return
        except WherryError as e:
            report.say(f"Image {name}", "Error", e.message)
            raise
        report.say(f"Image {name}", "Removed")

    return work


def remembered(api: Api, name: str) -> Project:
    """A project made from its containers' labels, for commands without a file."""
    found = state.of_project(api, name, oneoff=None)
    project = Project(name, "", [], {})
    from wherry.compose.places import NOWHERE, Map, mapping

    for container in found:
        service = project.services.setdefault(container.service, Map(NOWHERE))
        needs = Map(NOWHERE)
        for text in container.labels.get(labels.DEPENDENCIES, "").split(","):
            other, _, rest = text.partition(":")
            if other:
                condition = rest.partition(":")[0] or "service_started"
                needs[other] = mapping({"condition": condition, "required": False}, NOWHERE)
        if needs:
            service["depends_on"] = needs
        service["image"] = str(container.about.get("Image") or "")
    for service in project.services.values():
        for other in [one for one in service.get("depends_on") or () if one not in project.services]:
            del service["depends_on"][other]
    return project
