"""The trash: ``down -v`` renames volumes instead of removing them, and they can be restored for a while.

    shop_data  ->  compose-trash_1796000000_shop_data      seconds since the epoch, then the original name

All information is in the volume's name, because labels of a volume cannot be changed. So every client sees
the same trash. Only ``down -v`` and the ``trash`` commands empty it: they remove volumes that have been there
longer than :data:`KEPT`.
"""

from __future__ import annotations

import re
import time

from wherry.client import containers, volumes
from wherry.compose import labels
from wherry.compose.places import ComposeError
from wherry.errors import Conflict, NotFound, NotImplemented_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry.client.api import Api

PREFIX = "compose-trash_"
KEPT = 7 * 86400
"""Seconds."""
_NAME = re.compile(rf"{PREFIX}([0-9]{{1,12}})_(.+)")


class Trashed:
    """A volume in the trash. ``at`` is the time when it was put there, in seconds since the epoch."""

    __slots__ = ("at", "name", "original", "project")

    def __init__(self, name: str, original: str, at: int, project: str) -> None:
        self.name, self.original, self.at, self.project = name, original, at, project


def parsed(about: Any) -> Trashed | None:
    """A volume of a list, if it is in the trash; else None."""
    found = _NAME.fullmatch(str(about.get("Name") or ""))
    if found is None:
        return None
    project = (about.get("Labels") or {}).get(labels.PROJECT, "")
    return Trashed(found[0], found[2], int(found[1]), project)


def is_trashed(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def put(api: Api, name: str) -> bool:
    """Put a volume into the trash.

    :returns: whether the daemon can rename volumes. Docker Engine cannot.
    :raises Conflict: a container uses it.
    """
    if containers.listing(api, all=True, given={"volume": [name]}):
        raise Conflict(f"volume {name} is in use")
    try:
        volumes.rename(api, name, f"{PREFIX}{int(time.time())}_{name}")
    except NotFound:
        volumes.inspect(
            api, name
        )  # raises NotFound if the volume is missing; else the daemon has no such route
        return False
    except NotImplemented_:
        return False
    return True


def content(api: Api, project: str = "") -> list[Trashed]:
    """The volumes in the trash, of one project or of all, newest first."""
    given = {"label": [f"{labels.PROJECT}={project}"]} if project else None
    listed = volumes.listing(api, given).get("Volumes") or []
    found = [one for about in listed if (one := parsed(about)) is not None]
    return sorted(found, key=lambda one: (-one.at, one.original))


def restore(api: Api, project: str, wanted: Sequence[str]) -> list[Trashed]:
    """Rename volumes of a project to their original names. :returns: the restored volumes.

    :param wanted: original names, or names in the trash; empty: all volumes of the last ``down -v``.
    :raises ComposeError: there is no such volume in the trash, or the original name is in use.
    """
    there = content(api, project)
    if wanted:
        chosen = []
        for name in wanted:
            # If several have this name, take the newest.
            one = next((t for t in there if name in (t.name, t.original, _short(t, project))), None)
            if one is None:
                raise ComposeError(f"the trash has no volume {name} of project {project}")
            chosen.append(one)
    else:
        if not there:
            raise ComposeError(f"the trash has no volumes of project {project}")
        chosen = [one for one in there if one.at >= there[0].at - _ONE_DOWN]
        newest = {one.original: one for one in reversed(chosen)}
        chosen = [newest[name] for name in sorted(newest)]
    for one in chosen:
        try:
            volumes.inspect(api, one.original)
        except NotFound:
            continue
        raise ComposeError(
            f"a volume {one.original} already exists: remove it first (docker volume rm {one.original})"
        )
    for one in chosen:
        volumes.rename(api, one.name, one.original)
    return chosen


_ONE_DOWN = 60
"""Volumes that were put there within this many seconds belong to the same ``down``."""


def _short(one: Trashed, project: str) -> str:
    return one.original.removeprefix(f"{project}_")


def empty(api: Api, project: str = "", *, older_than: float = KEPT) -> list[Trashed]:
    """Remove volumes that have been in the trash for ``older_than`` seconds. :returns: the removed
    volumes."""
    gone = []
    for one in content(api, project):
        if one.at <= time.time() - older_than:
            try:
                volumes.remove(api, one.name)
            except NotFound:
                continue
            gone.append(one)
    return gone
