"""Projects for these tests: files in a directory, loaded as the commands load them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wherry.compose import loading
from wherry.compose.finding import WantedProject
from wherry.compose.project import Project


def put(where: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def load(
    where: Path,
    *files: str,
    env: Mapping[str, str] | None = None,
    profiles: tuple[str, ...] = (),
    name: str = "",
    directory: str = "",
    how: loading.How = loading.USUAL,
) -> Project:
    wanted = WantedProject(
        files=files,
        name=name,
        directory=directory,
        profiles=profiles,
        environment=env or {},
        cwd=str(where),
    )
    return loading.load(wanted, how)


def one(where: Path, text: str, **more: str) -> Project:
    """A project of one file."""
    put(where, {"compose.yaml": text})
    return load(where, env=more)
