"""The place for data without an owner that nobody may delete.

    <root>/lost+found/<id>/about     what it is and where it was (JSON)
    <root>/lost+found/<id>/data      the thing itself, a file or a directory, moved and not copied

A file system's own ``lost+found`` may be the same directory: entries without ``about`` are not ours.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from wherry.errors import InvalidArgument, NotFound
from wherry.linux import files, trees

_ABOUT, _DATA = "about", "data"
_BLOCK = 512


@dataclass(frozen=True)
class Lost:
    """:ivar kind: ``volume``, ``volume snapshot``, ``layer``, ``container``, ``blob`` or ``database``.
    :ivar name: what it was called, as far as it tells. :ivar was: where it was, below the root.
    :ivar since: nanoseconds since the epoch. :ivar path: where it is now."""

    id: str
    kind: str
    name: str
    was: str
    why: str
    since: int
    path: Path


class LostFound:
    """Safe to use from any thread."""

    def __init__(self, root: Path) -> None:
        """:param root: the daemon's root; nothing is made before something is set aside."""
        self._root = root
        self._directory = root / "lost+found"

    def set_aside(self, path: Path, kind: str, name: str, why: str) -> str:
        """Move a file or directory here, and return a line for the log that says so.

        If it cannot be moved, because it is on another file system, it stays where it is, and the line says
        that.
        """
        identifier = secrets.token_hex(6)
        place = self._directory / identifier
        about = {
            "kind": kind,
            "name": name,
            "was": str(path.relative_to(self._root)),
            "why": why,
            "since": time.time_ns(),
        }
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            place.mkdir(mode=0o700)
            try:
                files.write_atomic(place / _ABOUT, msgspec.json.encode(about))
                path.rename(place / _DATA)
                files.sync_directory(place)
            except BaseException:
                if not (place / _DATA).exists():
                    trees.remove(place)
                raise
        except OSError as e:
            return f"left the {kind} {name} where it is, {path}: {why}: it cannot be moved: {e.strerror or e}"
        return f"set the {kind} {name} aside: {why}; `wherry system lost restore {identifier}` takes it back"

    def all(self) -> list[Lost]:
        """The newest first."""
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        found = [one for name in names if (one := self._read(name)) is not None]
        return sorted(found, key=lambda one: (-one.since, one.id))

    def find(self, wanted: str) -> Lost:
        """By id or the beginning of one. :raises NotFound: none. :raises InvalidArgument: several."""
        found = [one for one in self.all() if wanted and one.id.startswith(wanted)]
        if len(found) > 1:
            raise InvalidArgument(f"several things set aside have an id that begins with {wanted}")
        if not found:
            raise NotFound(f"nothing that was set aside has the id {wanted}")
        return found[0]

    def forget(self, one: Lost) -> None:
        """Delete it for good, or what is left after its data were moved away."""
        trees.remove(self._directory / one.id)

    def size(self, one: Lost) -> int:
        """Bytes on disk."""
        status = one.path.lstat()
        if one.path.is_dir() and not one.path.is_symlink():
            return trees.measure(one.path).size
        return status.st_blocks * _BLOCK

    def _read(self, name: str) -> Lost | None:
        place = self._directory / name
        try:
            about: Any = msgspec.json.decode((place / _ABOUT).read_bytes())
        except (OSError, msgspec.DecodeError):
            return None
        if not isinstance(about, dict) or not (place / _DATA).exists():
            return None
        since = about.get("since")
        return Lost(
            name,
            str(about.get("kind", "")),
            str(about.get("name", "")),
            str(about.get("was", "")),
            str(about.get("why", "")),
            since if isinstance(since, int) else 0,
            place / _DATA,
        )
