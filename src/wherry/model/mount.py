"""The value that joins storage, volumes and runtime: one file system to mount, not yet mounted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mount:
    """Arguments of mount(8): ``type`` (``overlay``, ``bind`` …), ``source``, options without the target."""

    type: str
    source: str
    options: tuple[str, ...] = ()

    @property
    def fields(self) -> list[Any]:
        """For another process, as JSON."""
        return [self.type, self.source, list(self.options)]

    @classmethod
    def of_fields(cls, fields: list[Any]) -> Mount:
        """The mount that :attr:`fields` tell of."""
        kind, source, options = fields
        return cls(kind, source, tuple(options))
