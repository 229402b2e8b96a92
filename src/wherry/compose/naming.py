"""Find only a project's name, for commands that need no more; most files are not even parsed."""

from __future__ import annotations

from wherry.compose import finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wherry.compose.finding import FoundProject, WantedProject
    from wherry.compose.places import Map


def name_of(wanted: WantedProject, found: FoundProject, documents: Callable[[str], Sequence[Map]]) -> str:
    """``-p``, the environment, ``name:`` of the last file that has one, else the directory's name.

    :param documents: a file's mappings.
    :raises ComposeError: an invalid name.
    """
    if wanted.name or found.environment.get("COMPOSE_PROJECT_NAME"):
        return finding.project_name(wanted, found, "")
    from_file = ""
    for file in found.files:
        for document in documents(file):
            given = document.get("name")
            if isinstance(given, str):
                from wherry.compose.interpolation import interpolate

                at = document.place("name")
                from_file = str(interpolate(given, at, "name", found.environment.get, lambda _name: None))
    return finding.project_name(wanted, found, from_file)


def quick(wanted: WantedProject) -> str:
    """The same, but reads the files only as far as necessary.

    :raises ComposeError: no file was found, or a file cannot be read.
    """
    return name_of(wanted, finding.find(wanted), _documents)


def _documents(file: str) -> Sequence[Map]:
    data = finding.read(file)
    if not _may_say(data):
        return ()
    from wherry.compose.yamlfile import documents

    return documents(data, file)


def _may_say(data: bytes) -> bool:
    """Whether the file may have a top-level ``name``: then a line begins with it."""
    if data.lstrip()[:1] in (b"{", b"&", b"%", b"!", b"*", b"?"):
        return True
    starts = (b"name", b'"', b"'", b"<<", b"?", b"---", b"{")
    return any(line.lstrip().startswith(starts) for line in data.split(b"\n"))
