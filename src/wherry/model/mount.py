"""The value that joins storage, volumes and runtime: one file system to mount, not yet mounted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mount:
    """Arguments of mount(8): ``type`` (``overlay``, ``bind`` …), ``source``, options without the target."""

    type: str
    source: str
    options: tuple[str, ...] = ()
