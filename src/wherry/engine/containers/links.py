"""Links between containers of the default bridge (``--link``, Docker's "legacy links").

A container that links another one finds it under an alias in its ``/etc/hosts`` and in variables
(``DB_PORT_5432_TCP_ADDR`` …). A link is stored with the other container's id, so that the other may be
renamed. When the other starts again, the hosts files of the containers that link it are updated.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from wherry.engine.containers import descriptions
from wherry.engine.settings import Settings
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.model.container import Container, HostConfig
from wherry.model.ports import check_port
from wherry.network.room import NetworkRoom
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

    def __init__(self, *, settings: Settings, containers: Containers, network: NetworkRoom) -> None:
        self._settings = settings
        self._containers = containers
        self._sandboxes = network.sandboxes
        self._lock = threading.Lock()
        self._to: dict[str, dict[str, set[str]]] | None = None
        """target id -> recipient id -> aliases"""

    def resolve(self, host: HostConfig) -> dict[str, str]:
        """Resolve ``name[:alias]`` of a create request; returns ids by alias.

        :raises InvalidArgument: no such container, or the network does not support links.
        """
        links: dict[str, str] = {}
        if host.network_mode not in ("bridge", "host", "none") and ":" not in host.network_mode:
            # A network with names: there a link is one more name of the endpoint, and its container may be
            # created later.
            return links
        for text in host.links or ():
            wanted, _, alias = text.partition(":")
            wanted = wanted.lstrip("/")
            alias = alias.rpartition("/")[2] or wanted
            if not wanted or not _ALIAS.fullmatch(alias):
                raise InvalidArgument(f"bad format for links: {text}")
            links[alias] = self._holder(wanted).id
        if links and host.network_mode != "bridge":
            raise InvalidArgument(
                f"conflicting options: {host.network_mode} type networking can't be used with links"
            )
        return links

    def _holder(self, wanted: str) -> ContainerRow:
        """The container that has the address of a linked one: another one, if the linked one joins its
        namespace.

        :raises InvalidArgument: there is none, or it has no address of its own.
        """
        try:
            found = self._containers.find(wanted)
            while (mode := found.record.host_config.network_mode).startswith("container:"):
                found = self._containers.find(wanted := mode.partition(":")[2])
        except NotFound as e:
            raise InvalidArgument(f"could not get container for {wanted}: {e.message}") from e
        if mode == "host":
            raise InvalidArgument(
                "conflicting options: host type networking can't be used with links. This would result in "
                "undefined behavior"
            )
        return found

    def peers(self, row: ContainerRow) -> tuple[Peer, ...]:
        """The containers that a starting container links. :raises Conflict: one of them does not run."""
        return tuple(self._peer(row, alias, target) for alias, target in row.record.links.items())

    def _peer(self, row: ContainerRow, alias: str, target: str) -> Peer:
        try:
            other = self._containers.by_id(target)
        except NotFound as e:
            raise Conflict(f"Cannot link to a removed container as /{row.name}/{alias}") from e
        address = next(
            (e.ip for e in self._sandboxes.endpoints_of(other.id) if e.network_name == "bridge" and e.ip), ""
        )
        if other.state.status in ("running", "paused") and not address:
            raise InvalidArgument(f"container {other.id} not attached to default bridge network")
        if not address:
            raise Conflict(f"Cannot link to a non running container: /{other.name} AS /{row.name}/{alias}")
        return _peer(row.name, alias, other, address)

    def moved(self, row: ContainerRow, address: str) -> None:
        """A container has a new address: update the running containers that link it."""
        for recipient, aliases in self._recipients(row.id).items():
            try:
                other = self._containers.by_id(recipient)
            except NotFound:
                continue
            if other.state.status in ("running", "paused"):
                for alias in aliases:
                    self._rewrite(other, _peer(other.name, alias, row, address))

    def _rewrite(self, recipient: ContainerRow, peer: Peer) -> None:
        path = self._settings.container_directory(recipient.id) / "hosts"
        kept = [line for line in _lines(path) if peer.alias not in line.split()[1:]]
        # Written in place, because it is mounted in the container.
        path.write_text("".join(kept) + peer.hosts_line)

    def names(self, container_id: str) -> tuple[str, ...]:
        """The names ``recipient/alias`` under which a container is known besides its own name."""
        found = []
        for recipient, aliases in self._recipients(container_id).items():
            try:
                name = self._containers.by_id(recipient).name
            except NotFound:
                continue
            found += [f"{name}/{alias}" for alias in sorted(aliases)]
        return tuple(found)

    def shown(self, row: ContainerRow) -> list[str] | None:
        """``HostConfig.Links`` as inspect has it: ``/db:/web/alias``."""
        found = []
        for alias, target in row.record.links.items():
            try:
                found.append(f"/{self._containers.by_id(target).name}:/{row.name}/{alias}")
            except NotFound:
                continue
        return found or None

    def remove(self, path: str) -> None:
        """Remove the link ``recipient/alias``. :raises NotFound: there is none."""
        name, slash, alias = path.strip("/").partition("/")
        row = self._containers.find(name)
        if not slash:
            raise Conflict("Conflict, cannot remove the default link name of the container")
        if alias not in row.record.links:
            raise NotFound(f"No such link: {path}")
        target = row.record.links[alias]
        links = {a: t for a, t in row.record.links.items() if a != alias}
        record = replace(row.record, links=links)
        self._containers.set_record(record)
        descriptions.write(self._settings, row.name, record)
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
        """A container was removed. Links to it fail with an error when they are used."""
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
    """The lines of a hosts file. The container may have written anything into it."""
    try:
        with path.open("rb") as file:
            text = file.read(_HOSTS_MAX).decode(errors="replace")
    except OSError:
        return []
    return text.splitlines(keepends=True)
