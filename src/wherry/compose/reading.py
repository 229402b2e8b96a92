"""One file as a layer of a project: read, interpolated, extended, in long forms."""

from __future__ import annotations

import os

from wherry.compose import finding, interpolation, merging, paths, remotes, schema, yamlfile
from wherry.compose.places import RESET, ComposeError, FileError, Map, Place, copied, unresolved

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

EXTENDS_MAX = 50
FILES_MAX = 200


class ProjectReader:
    """Reads the files of one project; keeps a list of the files, and of unset variables."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        interpolate: bool = True,
        resolve_paths: bool = True,
        fetch: Callable[[str], str] = remotes.refuse,
    ) -> None:
        """:param fetch: the path of a file that lies elsewhere (``remotes``)."""
        self.environment, self.fetch = environment, fetch
        self.interpolate, self.resolve_paths = interpolate, resolve_paths
        self.unset: dict[str, None] = {}
        """Variables without a value, in the order in which they were found."""
        self.warnings: list[str] = []
        self._documents: dict[str, list[Map]] = {}

    def documents(self, file: str) -> list[Map]:
        """:raises ComposeError: it cannot be read, or has an error."""
        if file not in self._documents:
            if len(self._documents) >= FILES_MAX:
                raise ComposeError(f"more than {FILES_MAX} files belong to this project")
            self._documents[file] = yamlfile.documents(finding.read(file), file)
        return self._documents[file]

    def layer(self, file: str, directory: str) -> Map:
        """A file's documents, merged, in long forms; relative paths are still as written.

        :param directory: what paths in it are relative to.
        """
        merged: Map | None = None
        for document in self.documents(file):
            layer = self._layer(document, file, directory)
            merged = layer if merged is None else merging.merge(merged, layer)
        if merged is None:
            raise FileError(Place(file), "", "empty compose file")
        return merged

    def _layer(self, document: Map, file: str, directory: str) -> Map:
        raw = self.substituted(document)
        if "version" in raw:
            self.warnings.append(
                f"{file}: the attribute `version` is obsolete, it will be ignored, please remove it to "
                "avoid potential "
                "confusion"
            )
        layer: Map = schema.PROJECT.read(raw, raw.at, "")
        services: Map = layer.get("services") or Map()
        for name in list(services):
            if services[name] is not RESET and "extends" in services[name]:
                services.put(
                    name,
                    self._extended(services, name, file, directory, [(file, name)]),
                    services.place(name),
                )
        return layer

    def substituted(self, document: Map) -> Map:
        raw: Map = copied(document) if self.interpolate else unresolved(document)
        if self.interpolate:
            for key in raw:
                if key != "name":
                    raw[key] = interpolation.interpolate(
                        raw[key], raw.place(key), key, self.environment.get, self._note_unset
                    )
        return raw

    def _note_unset(self, name: str) -> None:
        self.unset[name] = None

    def _extended(
        self, services: Map, name: str, file: str, directory: str, chain: list[tuple[str, str]]
    ) -> Map:
        """A service merged over the one it extends, which may extend others."""
        service: Map = services[name]
        extends = service.get("extends")
        if not extends or extends is RESET:
            return service
        place = service.place("extends")
        base_name = extends["service"]
        base_file, base_directory, others = file, directory, services
        if extends.get("file"):
            if remotes.is_remote(extends["file"]):
                base_file = self.fetch(extends["file"])
            else:
                base_file = os.path.normpath(os.path.join(directory, extends["file"]))
            base_directory = os.path.dirname(base_file)
            others = self._services_of(base_file, place, name)
        link = (base_file, base_name)
        if link in chain or len(chain) > EXTENDS_MAX:
            told = " -> ".join(f"{one} in {where}" for where, one in [*chain, link])
            raise FileError(place, f"services.{name}.extends", f"goes in a circle: {told}")
        if others.get(base_name) in (None, RESET):
            raise FileError(
                place,
                "",
                f'cannot extend service "{name}" in {file}: service "{base_name}" not found in {base_file}',
            )
        base = self._extended(others, base_name, base_file, base_directory, [*chain, link])
        if base_file != file and self.resolve_paths:
            base = copied(base)
            paths.resolve_service(base, base_directory, base_name)
        made: Map = merging.merge(base, service, "services.*")
        made.pop("extends", None)
        return made

    def _services_of(self, file: str, place: Place, name: str) -> Map:
        if not os.path.isfile(file):
            raise FileError(place, f"services.{name}.extends.file", f"does not exist: {file}")
        merged: Map | None = None
        for document in self.documents(file):
            raw = self.substituted(document)
            services = schema.PROJECT.fields["services"].kind.read(
                raw.get("services"), raw.place("services"), "services"
            )
            merged = services if merged is None else merging.merge(merged, services, "services")
        return merged if merged is not None else Map(Place(file))

    def variables(self, files: list[str]) -> dict[str, tuple[bool, str, str]]:
        """The variables in the files: whether each is required, its default, its replacement."""
        found: dict[str, tuple[bool, str, str]] = {}
        for file in files:
            for document in self.documents(file):
                interpolation.variables(document, found)
        return found
