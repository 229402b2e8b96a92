"""A copy of a volume's or snapshot's row, kept beside the data: a lost row is made again from it.
<root>/<id>/about                          a volume's
<root>/<id>/snapshots/<snapshot>/about     a snapshot's
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from wherry.linux import files
from wherry.model import typed

_NAME = "about"


class AboutVolume(msgspec.Struct, frozen=True):
    """``created`` in nanoseconds since the epoch."""

    name: str
    created: int
    options: dict[str, str]
    labels: dict[str, str]


class AboutSnapshot(msgspec.Struct, frozen=True):
    """``created`` in nanoseconds since the epoch."""

    name: str
    created: int
    origin: str
    frozen: bool


T = TypeVar("T", AboutVolume, AboutSnapshot)


def write(directory: Path, about: AboutVolume | AboutSnapshot) -> None:
    """:raises OSError: no room, or no such directory."""
    files.write_atomic(directory / _NAME, msgspec.json.encode(about), durable=False)


def is_there(directory: Path) -> bool:
    """Whether there is a description that is not empty; a power cut can leave an empty one."""
    try:
        return (directory / _NAME).stat().st_size > 0
    except OSError:
        return False


def read(directory: Path, kind: type[T]) -> T | None:
    """None if there is none, because the data are older than this feature."""
    try:
        return typed.from_json((directory / _NAME).read_bytes(), kind)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None
