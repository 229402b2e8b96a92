"""A copy of a container's row, kept beside its files: a lost row is rebuilt from it.
<root>/containers/<id>/container.json
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from wherry.engine.settings import Settings
from wherry.linux import files
from wherry.model import typed
from wherry.model.container import Container

log = logging.getLogger(__name__)
_NAME = "container.json"


class Description(msgspec.Struct, frozen=True):
    name: str
    record: Container


def write(settings: Settings, name: str, record: Container) -> None:
    """Failures are ignored: the row is what counts, this is only the copy."""
    path = settings.container_directory(record.id) / _NAME
    try:
        files.write_atomic(path, msgspec.json.encode(Description(name, record)), durable=False)
    except OSError as e:
        log.warning("cannot describe container %s beside its files: %s", record.id[:12], e.strerror or e)


def is_there(directory: Path) -> bool:
    """Whether there is a description that is not empty; a power cut can leave an empty one."""
    try:
        return (directory / _NAME).stat().st_size > 0
    except OSError:
        return False


def read(directory: Path) -> Description | None:
    """None if there is none (the container is older than this feature),
    or it belongs to another container."""
    try:
        found = typed.from_json((directory / _NAME).read_bytes(), Description)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None
    return found if found.record.id == directory.name else None
