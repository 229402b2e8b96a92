"""The containers of a project, from the daemon's list."""

from __future__ import annotations

from wherry.client import containers
from wherry.compose import labels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from wherry.client.api import Api

    Object = dict[str, Any]


class ProjectContainer:
    """One container of a project, from a list."""

    __slots__ = ("about", "id", "labels", "name", "removed")

    def __init__(self, about: Object) -> None:
        self.about = about
        self.id = str(about.get("Id") or "")
        names = about.get("Names") or [self.id[:12]]
        own = [str(name).removeprefix("/") for name in names if str(name).count("/") <= 1]
        self.name = own[0] if own else self.id[:12]
        self.labels: dict[str, str] = about.get("Labels") or {}
        self.removed = False
        """Whether it has been removed since it was listed."""

    @property
    def service(self) -> str:
        return self.labels.get(labels.SERVICE, "")

    @property
    def number(self) -> int:
        text = self.labels.get(labels.NUMBER, "")
        return int(text) if text.isdecimal() else 0

    @property
    def oneoff(self) -> bool:
        return self.labels.get(labels.ONEOFF) == "True"

    @property
    def state(self) -> str:
        """created, running, paused, restarting, exited, removing or dead."""
        return str(self.about.get("State") or "")

    @property
    def runs(self) -> bool:
        return self.state in ("running", "restarting", "paused")

    def lost_network(self, name: str) -> None:
        """Record that it was stopped and disconnected from a network since it was listed."""
        self.about["State"] = "exited"
        ((self.about.get("NetworkSettings") or {}).get("Networks") or {}).pop(name, None)

    def short_name(self, project: str) -> str:
        """The name without the project's prefix."""
        for separator in "-_":
            if self.name.startswith(project + separator):
                return self.name.removeprefix(project + separator)
        return self.name


class Replacement:
    """An old container, and the new one if it exists already."""

    __slots__ = ("new", "old")

    def __init__(self, old: ProjectContainer, new: ProjectContainer | None = None) -> None:
        self.old, self.new = old, new


def of_project(
    api: Api, project: str, *, all: bool = True, oneoff: bool | None = False, services: Iterable[str] = ()
) -> list[ProjectContainer]:
    """A project's containers, by service and number.

    :param oneoff: containers of ``run``: False excludes them, True selects only them, None selects both.
    """
    wanted = [f"{labels.PROJECT}={project}"]
    if oneoff is not None:
        wanted.append(f"{labels.ONEOFF}={oneoff}")
    listed = [ProjectContainer(one) for one in containers.listing(api, all=all, given={"label": wanted})]
    names = set(services)
    found = [one for one in listed if one.service and (not names or one.service in names)]
    return sorted(found, key=lambda one: (one.service, one.number, one.name))


def by_service(found: Sequence[ProjectContainer]) -> dict[str, list[ProjectContainer]]:
    made: dict[str, list[ProjectContainer]] = {}
    for one in found:
        made.setdefault(one.service, []).append(one)
    return made


def may_still_end(before: Object | None, now: Object | None, *, reported: bool) -> bool:
    """Whether a ``die`` event of a container that ``up`` has started is still to come.

    A short-lived container may end before all containers are started, while its events are still on their
    way; then wait for them.

    :param before: ``State`` of the container before the start, None if it did not exist.
    :param now: ``State`` after the start of all.
    :param reported: whether its end has been reported since its last ``start``.
    """
    if now and (now.get("Running") or now.get("Restarting")):
        return True
    if reported or before is None:
        return False
    if before.get("Running") or now is None:
        return True
    return now.get("StartedAt") != before.get("StartedAt")
