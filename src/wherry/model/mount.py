"""A description of a file system to mount, which storage, volumes and runtime share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ENGINE_MADE = frozenset(
    b".dockerenv dev dev/console dev/mqueue dev/pts dev/shm etc/hostname etc/hosts etc/resolv.conf proc "
    b"sbin/docker-init sys sys/fs sys/fs/cgroup".split()
)
"""What the engine and the runtime make in every container, mostly to mount on, without a leading slash."""


@dataclass(frozen=True)
class Mount:
    """Arguments of mount(8): ``type`` (``overlay``, ``bind`` …), ``source``, options without the target."""

    type: str
    source: str
    options: tuple[str, ...] = ()

    @property
    def fields(self) -> list[Any]:
        """The mount as JSON, for another process."""
        return [self.type, self.source, list(self.options)]

    @classmethod
    def of_fields(cls, fields: list[Any]) -> Mount:
        """Make a mount from :attr:`fields`."""
        kind, source, options = fields
        return cls(kind, source, tuple(options))
