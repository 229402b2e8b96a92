"""Links between containers of the default bridge (``--link``, Docker's "legacy links").

A container that links another finds it under an alias in its ``/etc/hosts`` and in variables
(``DB_PORT_5432_TCP_ADDR`` …). Links are kept by the other's id, so that it may be renamed; when it starts
anew, the hosts files of those that link it are written again.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from wherry.engine.normalise import check_port
from wherry.engine.settings import Settings
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.model.container import Container, HostConfig
from wherry.network.manager import NetworkManager
from wherry.state.containers import ContainerRow, Containers

_ALIAS = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_NOT_PASSED_ON = ("HOME", "PATH")
_HOSTS_MAX = 1 << 20


@dataclass(frozen=True)
class Peer:
    """A linked container that runs, as ``recipient`` sees it."""

    recipient: str
    alias: str
    name: str
    hostname: str
    address: str
    ports: tuple[tuple[int, str], ...]
    env: tuple[str, ...]

    @property
    def hosts_line(self) -> str:
        names = dict.fromkeys((self.alias, self.hostname, self.name))
        return f"{self.address}\t{' '.join(names)}\n"

    def variables(self) -> list[str]:
        """What the recipient's processes find in their environment."""
        prefix = self.alias.replace("-", "_").upper()
        out = [f"{prefix}_NAME=/{self.recipient}/{self.alias}"]
        for position, (port, proto) in enumerate(self.ports):
            place = f"{proto}://{self.address}:{port}"
            if position == 0:
                out.append(f"{prefix}_PORT={place}")
            key = f"{prefix}_PORT_{port}_{proto.upper()}"
            out += [
                f"{key}={place}",
                f"{key}_ADDR={self.address}",
                f"{key}_PORT={port}",
                f"{key}_PROTO={proto}",
            ]
        for entry in self.env:
            name, equals, value = entry.partition("=")
            if equals and name not in _NOT_PASSED_ON:
                out.append(f"{prefix}_ENV_{name}={value}")
        return out


class Links:
    """Safe to use from any thread."""

    def __init__(self, *, settings: Settings, containers: Containers, network: NetworkManager) -> None:
        self._settings = settings
        self._containers = containers
        self._network = network
        self._lock = threading.Lock()
        self._to: dict[str, dict[str, set[str]]] | None = None
        """target id -> recipient id -> aliases"""

    def resolve(self, host: HostConfig) -> dict[str, str]:
        """``name[:alias]`` of a create request as ids by alias.

        :raises InvalidArgument: no such container, or a network on which links mean nothing.
        """
        links: dict[str, str] = {}
        for text in host.links or ():
            wanted, _, alias = text.partition(":")
            wanted = wanted.lstrip("/")
            alias = alias.rpartition("/")[2] or wanted
            if not wanted or not _ALIAS.fullmatch(alias):
                raise InvalidArgument(f"bad format for links: {text}")
            try:
                links[alias] = self._containers.find(wanted).id
            except NotFound as e:
                raise InvalidArgument(f"could not get container for {wanted}: {e.message}") from e
        if links and host.network_mode not in ("bridge", "host", "none") and ":" not in host.network_mode:
            return {}  # a network with names: there a link is one more name, that of the endpoint's request
        if links and host.network_mode != "bridge":
            kind = "container" if host.network_mode.startswith("container:") else host.network_mode
            raise InvalidArgument(f"conflicting options: {kind} type networking can't be used with links")
        return links

    def peers(self, row: ContainerRow) -> tuple[Peer, ...]:
        """The containers that a starting container links. :raises Conflict: one of them does not run."""
        return tuple(self._peer(row, alias, target) for alias, target in row.record.links.items())

    def _peer(self, row: ContainerRow, alias: str, target: str) -> Peer:
        try:
            other = self._containers.find(target)
        except NotFound as e:
            raise Conflict(f"Cannot link to a removed container as /{row.name}/{alias}") from e
        address = next(
            (e.ip for e in self._network.endpoints_of(other.id) if e.network_name == "bridge" and e.ip), ""
        )
        if other.state.status not in ("running", "paused") or not address:
            raise Conflict(f"Cannot link to a non running container: /{other.name} AS /{row.name}/{alias}")
        return _peer(row.name, alias, other, address)

    def moved(self, row: ContainerRow, address: str) -> None:
        """A container has (another) address: tell the running ones that link it."""
        for recipient, aliases in self._recipients(row.id).items():
            try:
                other = self._containers.find(recipient)
            except NotFound:
                continue
            if other.state.status in ("running", "paused"):
                for alias in aliases:
                    self._rewrite(other, _peer(other.name, alias, row, address))

    def _rewrite(self, recipient: ContainerRow, peer: Peer) -> None:
        path = self._settings.container_directory(recipient.id) / "hosts"
        kept = [line for line in _lines(path) if peer.alias not in line.split()[1:]]
        # In place: it is mounted in the container.
        path.write_text("".join(kept) + peer.hosts_line)

    def names(self, container_id: str) -> tuple[str, ...]:
        """Under which ``recipient/alias`` a container is known besides its own name."""
        found = []
        for recipient, aliases in self._recipients(container_id).items():
            try:
                name = self._containers.find(recipient).name
            except NotFound:
                continue
            found += [f"{name}/{alias}" for alias in sorted(aliases)]
        return tuple(found)

    def shown(self, row: ContainerRow) -> list[str] | None:
        """``HostConfig.Links`` as inspect has it: ``/db:/web/alias``."""
        found = []
        for alias, target in row.record.links.items():
            try:
                found.append(f"/{self._containers.find(target).name}:/{row.name}/{alias}")
            except NotFound:
                continue
        return found or None

    def remove(self, path: str) -> None:
        """Take back the link ``recipient/alias``. :raises NotFound: there is none."""
        name, slash, alias = path.strip("/").partition("/")
        row = self._containers.find(name)
        if not slash or alias not in row.record.links:
            raise NotFound(
                f"Cannot get parent /{name} for name {path}" if not slash else f"No such link: {path}"
            )
        target = row.record.links[alias]
        links = {a: t for a, t in row.record.links.items() if a != alias}
        self._containers.set_record(replace(row.record, links=links))
        with self._lock:
            aliases = (self._to or {}).get(target, {}).get(row.id, set())
            aliases.discard(alias)
        hosts = self._settings.container_directory(row.id) / "hosts"
        if hosts.exists():
            hosts.write_text("".join(line for line in _lines(hosts) if alias not in line.split()[1:]))

    def added(self, record: Container) -> None:
        with self._lock:
            if self._to is not None:
                _note(self._to, record)

    def removed(self, record: Container) -> None:
        """A container is gone; links to it say so when they are used."""
        with self._lock:
            if self._to is not None:
                self._to.pop(record.id, None)
                for target in record.links.values():
                    self._to.get(target, {}).pop(record.id, None)

    def _recipients(self, target: str) -> dict[str, set[str]]:
        with self._lock:
            if self._to is None:
                self._to = {}
                for row in self._containers.all():
                    _note(self._to, row.record)
            return {recipient: set(aliases) for recipient, aliases in self._to.get(target, {}).items()}


def _note(index: dict[str, dict[str, set[str]]], record: Container) -> None:
    for alias, target in record.links.items():
        index.setdefault(target, {}).setdefault(record.id, set()).add(alias)


def _peer(recipient: str, alias: str, other: ContainerRow, address: str) -> Peer:
    config = other.record.config
    return Peer(
        recipient=recipient,
        alias=alias,
        name=other.name,
        hostname=config.hostname or other.id[:12],
        address=address,
        ports=tuple(_ports(list(config.exposed_ports or {}))),
        env=tuple(config.env or ()),
    )


def _ports(exposed: Sequence[str]) -> list[tuple[int, str]]:
    found = []
    for text in exposed:
        low, high, proto = check_port(text)
        found += [(port, proto) for port in range(low, high + 1)]
    return sorted(found)


def _lines(path: Path) -> list[str]:
    """The lines of a hosts file; the container may have written anything to it."""
    try:
        with path.open("rb") as file:
            text = file.read(_HOSTS_MAX).decode(errors="replace")
    except OSError:
        return []
    return text.splitlines(keepends=True)
