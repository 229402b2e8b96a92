"""Select the services that a command names, with or without their dependencies."""

from __future__ import annotations

from wherry.compose.places import ComposeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from wherry.compose.project import Project


def choose(project: Project, names: Iterable[str], *, dependencies: bool = True) -> None:
    """Keep the named services and their dependencies; all services if none is named.

    :raises ComposeError: there is no such service.
    """
    wanted = list(names)
    for name in wanted:
        if name not in project.all_services:
            raise ComposeError(f"no such service: {name}")
    project.enable(wanted)
    if not wanted:
        return
    kept = project.with_dependencies(wanted) if dependencies else [n for n in project.services if n in wanted]
    for name in list(project.services):
        if name not in kept:
            project.disabled[name] = project.services.pop(name)
    if not dependencies:
        for service in project.services.values():
            needs = service.get("depends_on")
            for other in [one for one in needs or () if one not in kept]:
                del needs[other]


def prune_resources(project: Project) -> None:
    """Remove the networks, volumes, secrets and configs that no service uses."""
    used: dict[str, set[str]] = {
        key: set() for key in ("networks", "volumes", "secrets", "configs", "models")
    }
    for service in project.services.values():
        used["networks"] |= set(service.get("networks") or ())
        used["models"] |= set(service.get("models") or ())
        for volume in service.get("volumes") or ():
            if volume["type"] == "volume" and volume.get("source"):
                used["volumes"].add(volume["source"])
        for section in ("secrets", "configs"):
            used[section] |= {one["source"] for one in service.get(section) or ()}
        used["secrets"] |= {one["source"] for one in (service.get("build") or {}).get("secrets") or ()}
    for section, names in used.items():
        held = getattr(project, section)
        for key in [key for key in held if key not in names]:
            del held[key]
