"""The three files the engine gives every container: ``hostname``, ``hosts`` and ``resolv.conf``."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wherry.engine.containers.joined import Joined
from wherry.engine.settings import Settings
from wherry.errors import InvalidArgument
from wherry.linux import files
from wherry.model.container import Container
from wherry.runtime.spec import OciMount

_HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
_SYSTEMD_RESOLV = Path("/run/systemd/resolve/resolv.conf")
_FALLBACK_DNS = ("8.8.8.8", "8.8.4.4")


def write_etc_files(record: Container, joined: Joined, settings: Settings) -> list[OciMount]:
    """Write what is known before the network exists, and return the mounts.

    The files are below the container's directory and persist. If the user mounts something at one of these
    places, that file is left out. They are read-only if the container's root file system is.
    """
    directory = settings.container_directory(record.id)
    taken = {m.destination for m in record.mounts}
    read_only = ("ro",) if record.host_config.readonly_rootfs else ()
    resolv = directory / "resolv.conf"
    files.write_atomic(resolv, resolv_conf(record, joined, settings).encode(), mode=0o644, durable=False)
    hostname = directory / "hostname"
    files.write_atomic(hostname, f"{joined.hostname}\n".encode(), mode=0o644, durable=False)
    hosts = directory / "hosts"
    files.write_atomic(hosts, hosts_file(record, joined, (), "").encode(), mode=0o644, durable=False)
    out = []
    for path in (resolv, hostname, hosts):
        destination = f"/etc/{path.name}"
        if destination not in taken:
            out.append(OciMount(destination, "bind", str(path), ("bind", "rprivate", *read_only)))
    return out


def add_addresses(
    record: Container, joined: Joined, settings: Settings, addresses: Sequence[str], gateway: str
) -> None:
    """Add the container's addresses to ``hosts``. Written in place: the file may be mounted already."""
    path = settings.container_directory(record.id) / "hosts"
    path.write_text(hosts_file(record, joined, addresses, gateway))


def change_addresses(
    record: Container, settings: Settings, *, added: Sequence[str] = (), removed: Sequence[str] = ()
) -> None:
    """Update the lines of ``hosts`` with the addresses of a running container.
    Lines that the container wrote itself stay."""
    path = settings.container_directory(record.id) / "hosts"
    own = _own_names(record, record.config.hostname or record.id[:12])
    gone = {f"{address}\t{own}" for address in removed}
    lines = [line for line in _read(path).splitlines() if line not in gone]
    path.write_text("".join(f"{line}\n" for line in (*lines, *(f"{a}\t{own}" for a in added))))


def _own_names(record: Container, hostname: str) -> str:
    domain = record.config.domainname
    full = f"{hostname}.{domain}" if domain else hostname
    short = hostname if domain else hostname.partition(".")[0]
    return full if full == short else f"{full} {short}"


def hosts_file(record: Container, joined: Joined, addresses: Sequence[str], gateway: str) -> str:
    text = _read(Path("/etc/hosts")) or _HOSTS if joined.network == "host" else _HOSTS
    for entry in record.host_config.extra_hosts or ():
        name, separator, target = entry.partition(":")
        if not separator or not name:
            raise InvalidArgument(f"bad format for add-host: {entry!r}")
        if target == "host-gateway":
            if not gateway:
                continue
            target = gateway
        else:
            target = _address(target, entry)
        text += f"{target}\t{name}\n"
    text += "".join(peer.hosts_line for peer in joined.links)
    return text + "".join(f"{a}\t{_own_names(record, joined.hostname)}\n" for a in addresses)


def _address(text: str, entry: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError as e:
        raise InvalidArgument(f"invalid IP address in add-host: {entry!r}") from e


EMBEDDED = "127.0.0.11"
"""The address where the daemon answers DNS queries inside a container."""


def answer_names(record: Container, settings: Settings) -> None:
    """Point a running container's resolver at the daemon, because it has joined a network with names. A
    ``resolv.conf`` that the container has changed is left alone."""
    path = settings.container_directory(record.id) / "resolv.conf"
    before = resolv_conf(record, _Plain(), settings)
    if _read(path) == before:
        path.write_text(resolv_conf(record, _Plain(names=True), settings))


@dataclass(frozen=True)
class _Plain:
    """A namespace of the container's own, with only what a resolver needs to know of it."""

    network: str = ""
    names: bool = False


def servers_of(record: Container, settings: Settings) -> tuple[tuple[str, ...], bool]:
    """The upstream servers for names that the daemon does not know (an empty list: the host's own servers),
    and whether they are asked from inside the container's namespace."""
    own = tuple(record.host_config.dns or ())
    return (own, True) if own else (settings.dns, False)


def resolv_conf(record: Container, joined: Joined | _Plain, settings: Settings) -> str:
    """The host's resolver settings, changed as asked. Loopback servers are left out: a container has none."""
    host = record.host_config
    base = _read(Path("/etc/resolv.conf"))
    lines = [line.split() for line in base.splitlines() if line and line[0] not in "#;"]
    servers = [fields[1] for fields in lines if fields[0] == "nameserver" and len(fields) > 1]
    if joined.network != "host":
        if servers and all(_is_loopback(s) for s in servers):
            upstream = _read(_SYSTEMD_RESOLV)
            servers = [
                f[1] for f in map(str.split, upstream.splitlines()) if f[:1] == ["nameserver"] and f[1:]
            ]
        servers = [s for s in servers if not _is_loopback(s)] or list(_FALLBACK_DNS)
    servers = [EMBEDDED] if joined.names else list(host.dns or settings.dns or servers)
    search = list(host.dns_search or settings.dns_search or _words(lines, ("search", "domain")))
    options = list(host.dns_options or settings.dns_options or _words(lines, ("options",)))
    if joined.names and not any(o.partition(":")[0] == "ndots" for o in options):
        options.append("ndots:0")  # a name without a dot: first a container's, then with search domains
    for server in (*servers, *(host.dns or ())):
        _address(server.partition("%")[0], server)
    text = "".join(f"nameserver {server}\n" for server in servers)
    if search and search != ["."]:
        text += f"search {' '.join(search)}\n"
    if options:
        text += f"options {' '.join(options)}\n"
    return text


def _words(lines: list[list[str]], keys: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for fields in lines:
        if fields[0] in keys:
            found = fields[1:]
    return found


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
