"""The history of a project: one entry for each ``up`` of the whole project that changed something.

    $XDG_STATE_HOME/wherry/compose/<daemon's id>/<project>/000001.json     mode 0600
                                                        rollback.json    the file of the last rollback

An entry holds the project as ``config`` prints it, and the ID of each service's image. So a rollback does not
depend on the original files, variables and ``env_file``, or on where a tag points now.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from wherry.client import images
from wherry.compose import output
from wherry.compose.defaults import with_environment
from wherry.compose.places import ComposeError
from wherry.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wherry.client.api import Api
    from wherry.compose.project import Project

    Object = dict[str, Any]

KEPT = 50
"""The number of entries that are kept for each project."""


class ProjectHistory:
    """The entries of one project on one daemon."""

    def __init__(self, daemon: str, project: str, environment: Mapping[str, str] | None = None) -> None:
        env = os.environ if environment is None else environment
        state = env.get("XDG_STATE_HOME") or os.path.join(env.get("HOME") or "/root", ".local", "state")
        self._directory = Path(state, "wherry", "compose", _component(daemon), _component(project))
        self._project = project

    def record(self, project: Project, identities: Mapping[str, str], *, note: str = "") -> int:
        """Add an entry. :returns: its number, or 0 if nothing has changed since the last one.

        :param identities: the image ID of each service (``sha256:…``).
        """
        services = {name: with_environment(project, one) for name, one in project.services.items()}
        # A rollback reads it as a Compose file, and would replace variables again: escape "$".
        document = json.loads(output.as_json(project.with_services(services)).replace("$", "$$"))
        made = {
            "at": int(time.time()), "note": note, "directory": project.directory,
            "images": dict(sorted(identities.items())), "project": document,
        }  # fmt: skip
        entries = self.entries()
        same = ("images", "project", "directory")
        if entries and all(entries[-1][1].get(key) == made[key] for key in same):
            return 0
        number = entries[-1][0] + 1 if entries else 1
        self._write(f"{number:06d}.json", made)
        for old, _ in entries[: max(0, len(entries) + 1 - KEPT)]:
            (self._directory / f"{old:06d}.json").unlink(missing_ok=True)
        return number

    def keep_rollback(self, document: Object) -> Path:
        """Write the Compose file of a rollback to a lasting place, because labels of its containers name it.

        :returns: its path.
        """
        return self._write("rollback.json", document)

    def _write(self, name: str, content: Object) -> Path:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path, temporary = self._directory / name, self._directory / f".{name}.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file)
        temporary.replace(path)
        return path

    def entries(self) -> list[tuple[int, Object]]:
        """The number and the content of each entry, oldest first. Unreadable entries are left out."""
        found = []
        for path in sorted(self._directory.glob("[0-9]*.json")):
            try:
                found.append((int(path.stem), json.loads(path.read_text())))
            except (OSError, ValueError):
                continue
        return found

    def entry(self, number: int) -> Object:
        """:raises ComposeError: no such entry."""
        for one, content in self.entries():
            if one == number:
                return content
        raise ComposeError(f"project {self._project} has no entry {number}: see wherry compose history")


def _component(text: str) -> str:
    """A name in the form of a directory name."""
    return text.replace("/", "_").lstrip(".") or "_"


def as_it_was(api: Api, entry: Object) -> Object:
    """The project of an entry; each service uses the image that it had then.

    :raises ComposeError: an image no longer exists.
    """
    document: Object = json.loads(json.dumps(entry["project"]))
    for name, service in document.get("services", {}).items():
        identity = entry["images"].get(name, "")
        if not identity:
            continue
        named = str(service.get("image") or "")
        service.pop("build", None)
        service.pop("pull_policy", None)
        if _identity(api, named) != identity:
            if _identity(api, identity) != identity:
                raise ComposeError(f"image {identity} of service {name} no longer exists on this host")
            service["image"] = identity
    return document


def _identity(api: Api, name: str) -> str:
    try:
        return str(images.inspect(api, name).get("Id") or "") if name else ""
    except NotFound:
        return ""


def differences(before: Object | None, now: Object) -> str:
    """A summary of what an entry changed: ``+web ~db -old``."""
    old, new = (_told(one) for one in (before or {"project": {}, "images": {}}, now))
    words = [f"+{name}" for name in sorted(new.keys() - old.keys())]
    words += [f"~{name}" for name in sorted(new.keys() & old.keys()) if new[name] != old[name]]
    words += [f"-{name}" for name in sorted(old.keys() - new.keys())]
    return " ".join(words) or "networks, volumes, secrets or configs"


def _told(entry: Object) -> dict[str, tuple[Object, str]]:
    services = entry["project"].get("services", {})
    return {name: (one, entry["images"].get(name, "")) for name, one in services.items()}
