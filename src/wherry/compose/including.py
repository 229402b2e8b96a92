"""``include``: merge other projects' files, each with its own directory and environment."""

from __future__ import annotations

import os

from wherry.compose import dotenv, merging, paths, remotes
from wherry.compose.places import ComposeError, FileError, Map, Place
from wherry.compose.reading import ProjectReader
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

DEPTH_MAX = 30
_SECTIONS = ("services", "networks", "volumes", "secrets", "configs", "models")


def with_included(reader: ProjectReader, layer: Map, directory: str, chain: Sequence[str]) -> Map:
    """The layer merged over everything that its ``include`` names; ``include`` itself is removed.

    :raises FileError: a missing file, a cycle, a name that both sides define.
    """
    include = layer.pop("include", None)
    if not include:
        return layer
    if len(chain) > DEPTH_MAX:
        raise FileError(include.at, "include", "goes too deep")
    gathered: Map = Map(layer.at)
    for index, one in enumerate(include):
        place = include.place(index)
        brought = _included(reader, one, directory, chain, place)
        _take_over(gathered, brought, place, ", ".join(one["path"]))
    for section in _SECTIONS:
        mine: Map = layer.get(section) or Map()
        theirs: Map = gathered.get(section) or Map()
        for name in mine:
            if name in theirs and not same(mine[name], theirs[name]):
                raise FileError(
                    mine.place(name),
                    "",
                    f"{section}.{name} conflicts with imported resource ({theirs.place(name)})",
                )
    return merging.merge(gathered, layer)  # type: ignore[no-any-return]


def same(one: Any, other: Any) -> bool:
    return bool(one == other)


def _take_over(gathered: Map, brought: Map, place: Place, path: str) -> None:
    for section in _SECTIONS:
        theirs = brought.get(section)
        if not theirs:
            continue
        mine = gathered.setdefault(section, Map(theirs.at))
        for name, one in theirs.items():
            if name in mine and not same(mine[name], one):
                raise FileError(place, "", f"{section}.{name} conflicts with imported resource (in {path})")
            mine.put(name, one, theirs.place(name))


def _included(reader: ProjectReader, one: Map, directory: str, chain: Sequence[str], place: Place) -> Map:
    files = [_file(reader, path, directory, place) for path in one["path"]]
    for file in files:
        if file in chain:
            told = " -> ".join([*chain, file])
            raise FileError(place, "include", f"cycle detected: {told}")
        if not os.path.isfile(file):
            raise FileError(place, "include", f"of a file that does not exist: {file}")
    where = paths.absolute(one["project_directory"], directory) if one.get("project_directory") else ""
    where = where or os.path.dirname(files[0])
    inner = ProjectReader(
        _environment(reader, one, where, directory),
        interpolate=reader.interpolate,
        resolve_paths=reader.resolve_paths,
        fetch=reader.fetch,
    )
    merged: Map | None = None
    for file in files:
        layer = inner.layer(file, where)
        layer = with_included(inner, layer, where, [*chain, file])
        merged = layer if merged is None else merging.merge(merged, layer)
    assert merged is not None
    merging.settle(merged)
    paths.resolve(merged, where if reader.resolve_paths else os.path.relpath(where, directory))
    reader.unset.update(inner.unset)
    reader.warnings += inner.warnings
    merged.pop("name", None)
    return merged


def _file(reader: ProjectReader, path: str, directory: str, place: Place) -> str:
    if not remotes.is_remote(path):
        return paths.absolute(path, directory)
    try:
        return reader.fetch(path)
    except WherryError as e:
        raise FileError(place, "include", f"of {e.message}") from e


def files_of(reader: ProjectReader, files: Sequence[str], directory: str) -> list[str]:
    """The files and those that they include, as long as their names contain no variables."""
    found: list[str] = []
    for file in files:
        if file in found or not (file == "-" or os.path.isfile(file)):
            continue
        found.append(file)
        for document in reader.documents(file):
            for one in document.get("include") or ():
                path: Any = one.get("path") if isinstance(one, Map) else one
                texts = [str(name) for name in (path if isinstance(path, list) else [path])]
                names = [
                    reader.fetch(text) if remotes.is_remote(text) else paths.absolute(text, directory)
                    for text in texts
                ]
                more = files_of(reader, names, os.path.dirname(names[0]))
                found += [name for name in more if name not in found]
    return found


def _environment(reader: ProjectReader, one: Map, where: str, directory: str) -> dict[str, str]:
    """Our environment, and the other variables of the included project's ``.env``."""
    found = dict(reader.environment)
    given = [paths.absolute(path, directory) for path in one.get("env_file") or ()]
    for path in given or [os.path.join(where, ".env")]:
        if not os.path.isfile(path):
            if given:
                raise ComposeError(f"couldn't find env file: {path}")
            continue
        for name, value in dotenv.read(path, lambda n: found.get(n)).items():
            if value is not None:
                found.setdefault(name, value)
    return found
