"""Callbacks for when a container runs, and for removing it at its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from wherry.state.containers import ContainerRow


@dataclass
class Observers:
    """Made before the lifecycle, which calls them; the parts built on the lifecycle add themselves.

    :ivar running: called with a container's id when it runs, and whether it was running before this daemon
        started.
    :ivar self_removing: called when a container with ``--rm`` has ended, with its lock held.
    """

    running: list[Callable[[str, bool], None]] = field(default_factory=list)
    self_removing: list[Callable[[ContainerRow], Awaitable[None]]] = field(default_factory=list)
