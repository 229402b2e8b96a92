"""Load a project: the order of the steps.

find the files and the environment -> each file: read, substitute, long forms, extend, include -> merge ->
paths -> profiles -> defaults -> checks
"""

from __future__ import annotations

import os

from wherry.compose import checks, defaults, finding, including, merging, naming, paths
from wherry.compose.places import ComposeError, Map
from wherry.compose.project import Project, extensions_of
from wherry.compose.reading import ProjectReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.compose.finding import FoundProject, WantedProject


class How:
    """The steps of loading to skip, for ``config --no-…``."""

    def __init__(
        self,
        *,
        interpolate: bool = True,
        normalise: bool = True,
        consistent: bool = True,
        resolve_paths: bool = True,
    ) -> None:
        self.interpolate, self.normalise = interpolate, normalise
        self.consistent, self.resolve_paths = consistent, resolve_paths


USUAL = How()


def load(wanted: WantedProject, how: How = USUAL, *, separator: str = "-") -> Project:
    """:raises ComposeError: no file was found, or a file has an error; the text has its place."""
    found = finding.find(wanted)
    reader = ProjectReader(
        found.environment, interpolate=how.interpolate, resolve_paths=how.resolve_paths, fetch=wanted.fetch
    )
    name = naming.name_of(wanted, found, reader.documents)
    found.environment["COMPOSE_PROJECT_NAME"] = name
    merged = _merged(reader, found)
    project = Project(
        name,
        found.directory,
        found.files,
        found.environment,
        env_files=found.env_files,
        profiles=_profiles(wanted, found),
        warnings=[*found.warnings, *reader.warnings],
        separator=separator,
    )
    merging.settle(merged)
    merging.deduplicate(merged.get("services") or Map())
    defaults.external_forms(merged, project.warnings)
    if how.resolve_paths:
        paths.resolve(merged, found.directory)
    if how.interpolate:
        defaults.fill_forms(merged)
    _fill(project, merged)
    _disable_others(project)
    if how.normalise and how.interpolate:
        defaults.normalise(project)
    if how.interpolate:
        for service in project.all_services.values():
            defaults.with_label_files(project, service)
    if how.consistent:
        checks.check(project)
    project.warnings += [
        f'The "{one}" variable is not set. Defaulting to a blank string.' for one in reader.unset
    ]
    return project


def _merged(reader: ProjectReader, found: FoundProject) -> Map:
    merged: Map | None = None
    for file in found.files:
        directory = os.path.dirname(file) if file in found.fetched else found.directory
        layer = reader.layer(file, directory)
        layer = including.with_included(reader, layer, directory, [file])
        if directory != found.directory and reader.resolve_paths:
            paths.resolve(layer, directory)
        merged = layer if merged is None else merging.merge(merged, layer)
    assert merged is not None
    return merged


def _fill(project: Project, merged: Map) -> None:
    for section in ("services", "networks", "volumes", "secrets", "configs", "models"):
        getattr(project, section).update(merged.get(section) or {})
    project.extensions.update(extensions_of(merged))
    if not project.services:
        raise (
            ComposeError("no service selected")
            if project.files == ["-"]
            else ComposeError(f"{project.files[0]}: empty compose file: no services")
        )


def _profiles(wanted: WantedProject, found: FoundProject) -> list[str]:
    """The profiles that were asked for, on the command line or else in the environment."""
    given = found.environment.get("COMPOSE_PROFILES", "")
    return wanted.profiles or [one.strip() for one in given.split(",") if one.strip()]


def _disable_others(project: Project) -> None:
    """Disable the services that belong to other profiles only."""
    asked = project.profiles
    if "*" in asked:
        return
    for name, service in list(project.services.items()):
        mine = service.get("profiles") or []
        if mine and not set(mine) & set(asked):
            project.disabled[name] = project.services.pop(name)
