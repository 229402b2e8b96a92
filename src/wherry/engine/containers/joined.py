"""Which namespaces a container takes from the host or from another container."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.engine.containers.links import Peer


@dataclass(frozen=True)
class Joined:
    """Namespaces taken from elsewhere: a path, ``"host"``, or ``""`` for new ones. ``shm`` is a host path;
    ``names`` says that the daemon answers the container's DNS questions."""

    network: str
    ipc: str = ""
    pid: str = ""
    hostname: str = ""
    shm: str | None = None
    links: tuple[Peer, ...] = ()
    names: bool = False
