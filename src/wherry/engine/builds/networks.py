"""The network namespaces for a build's commands: made when a step needs one, and used again."""

from __future__ import annotations

import secrets
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

from wherry.engine.containers.joined import Joined
from wherry.engine.containers.sandboxes import Sandboxes
from wherry.network.room import NetworkRoom
from wherry.network.types import Owner, Resolving

_HOSTNAME = "buildkitsandbox"


@dataclass(frozen=True)
class BuildNamespace:
    """The namespaces of a command, its addresses, and the gateway to the host; ``""`` for none."""

    joined: Joined
    addresses: tuple[str, ...] = ()
    gateway: str = ""
    sandbox: str = ""
    """The id of the sandbox that was made for it."""


class NamespacePool:
    """The network namespaces of one build.
    One step at a time uses each; they are removed at the build's end."""

    def __init__(
        self, network: NetworkRoom, sandboxes: Sandboxes, directory: Path, servers: tuple[str, ...]
    ) -> None:
        """:param directory: where namespaces are pinned. :param servers: the daemon's DNS servers; if empty,
        the host's are used.
        """
        self._network = network
        self._sandboxes = sandboxes
        self._directory = directory
        self._servers = servers
        self._lock = threading.Lock()
        self._idle: dict[str, list[BuildNamespace]] = {}
        self._all: list[str] = []
        self._default = ""
        """The network for builds, once it was needed."""

    def take(self, mode: str) -> BuildNamespace:
        """Blocks. :param mode: ``default``, ``none``, ``host``, ``container:NAME``, or a network.

        :raises NotFound: there is no such network or container. :raises Conflict: the container does not run.
        """
        if mode == "host":
            return BuildNamespace(Joined("host", hostname=socket.gethostname()))
        kind, colon, name = mode.partition(":")
        if kind == "container" and colon:
            return BuildNamespace(self._sandboxes.of_another(name))
        idle = self._idle.setdefault(mode, [])
        return idle.pop() if idle else self._make(mode)

    def _make(self, mode: str) -> BuildNamespace:
        identifier = secrets.token_hex(32)
        self._all.append(identifier)
        wanted = mode
        if mode == "default":
            with self._lock:  # steps start on several threads
                wanted = self._default = self._default or self._network.builds.enter()
        sandbox = self._network.sandboxes.create(
            identifier,
            network_mode=wanted,
            # without a name: containers on the network must not resolve it as one of theirs
            owner=Owner(resolving=Resolving(servers=self._servers)),
        )
        names = any(endpoint.dns_names for endpoint in sandbox.endpoints)
        return BuildNamespace(
            Joined(str(self._directory / identifier), hostname=_HOSTNAME, names=names),
            tuple(ip for endpoint in sandbox.endpoints for ip in endpoint.addresses),
            self._network.sandboxes.gateway(sandbox.endpoints),
            identifier,
        )

    def give_back(self, mode: str, place: BuildNamespace, *, clean: bool) -> None:
        """:param clean: nothing in the namespace can have been changed."""
        if clean and place.sandbox:
            self._idle[mode].append(place)

    def close(self) -> None:
        """Blocks."""
        for identifier in self._all:
            self._network.sandboxes.delete(identifier)
        self._all, self._idle = [], {}
        if self._default:
            self._default = ""
            self._network.builds.leave()
