"""The daemon's configuration of registries: mirrors, rewrites, blocked and insecure registries, proxies.

A rule is for a host or for a prefix of names (``docker.io``, ``docker.io/library``); the longest matching
prefix counts. Requests for ``docker.io`` go to the host that serves it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from wherry.errors import InvalidArgument
from wherry.model.reference import DEFAULT_DOMAIN, Reference

CERTS = (Path("/etc/wherry/certs.d"), Path("/etc/docker/certs.d"))
HUB_HOST = "registry-1.docker.io"
HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
DOWNLOADS, UPLOADS, ATTEMPTS, TIMEOUT = 3, 5, 5, 60


@dataclass(frozen=True)
class PrefixRule:
    """For names that begin with ``prefix``: the real location, the mirrors, or that they are blocked."""

    prefix: str
    location: str = ""
    mirrors: tuple[str, ...] = ()
    insecure: bool = False
    blocked: bool = False

    def fits(self, name: str) -> bool:
        return name == self.prefix or name.startswith(self.prefix + "/")


@dataclass(frozen=True)
class Proxies:
    """URLs; ``none_for`` lists the hosts, ``.domains``, networks and ``*`` that are reached
    without a proxy."""

    http: str = ""
    https: str = ""
    none_for: tuple[str, ...] = ()

    def url_for(self, scheme: str, host: str) -> str | None:
        """The proxy for a request to ``host`` (``name[:port]``)."""
        chosen = self.https if scheme == "https" else self.http
        return None if not chosen or _is_direct(host, self.none_for) else chosen


@dataclass(frozen=True)
class RegistryConfig:
    """``timeout`` in seconds: for connecting, for an answer, and for a transfer that makes almost no
    progress."""

    rules: tuple[PrefixRule, ...] = ()
    insecure: tuple[str, ...] = ()
    proxies: Proxies = field(default_factory=Proxies)
    certificates: tuple[Path, ...] = CERTS
    downloads: int = DOWNLOADS
    uploads: int = UPLOADS
    attempts: int = ATTEMPTS
    timeout: float = TIMEOUT

    def rule_for(self, name: str) -> PrefixRule | None:
        fitting = [rule for rule in self.rules if rule.fits(name)]
        return max(fitting, key=lambda rule: len(rule.prefix), default=None)

    def is_insecure(self, host: str) -> bool:
        """Whether ``host[:port]`` may be used with plain HTTP or an unverified certificate."""
        name, address = host_name(host), address_of(host)
        if (
            name == "localhost"
            or name.endswith(".localhost")
            or (address is not None and address.is_loopback)
        ):
            return True
        for entry in self.insecure:
            if entry in (host, name):
                return True
            if address is not None and "/" in entry:
                network = ipaddress.ip_network(entry, strict=False)
                if address.version == network.version and address in network:
                    return True
        return False


@dataclass(frozen=True)
class RegistryPlace:
    """A place where a repository can be found: ``host[:port]``, and its path there.

    :ivar origin: whether this is the registry in the name, so that its credentials may be used.
    :ivar scheme: ``https`` or ``http`` if the configuration sets it, else empty.
    """

    host: str
    path: str
    insecure: bool
    origin: bool = True
    scheme: str = ""
    userinfo: tuple[str, str] | None = None


def host_name(host: str) -> str:
    """``host[:port]`` without its port, and an IPv6 address without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host_name(host))
    except ValueError:
        return None


def places(config: RegistryConfig, reference: Reference, *, mirrors: bool) -> list[RegistryPlace]:
    """Where to ask for a reference, in this order.

    :raises InvalidArgument: the configuration blocks the registry; the caller words the error.
    """
    rule = config.rule_for(reference.name)
    if rule is not None and rule.blocked:
        raise Blocked(reference.domain)
    found = []
    if rule is not None and mirrors:
        rest = reference.name[len(rule.prefix) :].strip("/")
        found = [_mirror(config, url, rest, rule) for url in rule.mirrors]
    if rule is not None and rule.location:
        name = rule.location + reference.name[len(rule.prefix) :]
        if (other := config.rule_for(name)) is not None and other.blocked:
            raise Blocked(name.partition("/")[0])
        domain, _, path = name.partition("/")
    else:
        domain, path = reference.domain, reference.path
    host = HUB_HOST if domain == DEFAULT_DOMAIN else domain
    insecure = config.is_insecure(host) or (rule is not None and rule.insecure)
    found.append(RegistryPlace(host, path, insecure, origin=domain == reference.domain))
    return found


class Blocked(InvalidArgument):
    """The configuration blocks the registry ``host``."""

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__(f"registry {host} is blocked by the daemon's configuration")


def _mirror(config: RegistryConfig, url: str, rest: str, rule: PrefixRule) -> RegistryPlace:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    # A mirror of a whole registry has the same paths; a mirror of a prefix has the part after the prefix.
    below = rule.prefix.partition("/")[2]
    base = parts.path.strip("/")
    path = "/".join(part for part in (base or below, rest) if part)
    user = (unquote(parts.username or ""), unquote(parts.password or "")) if parts.username else None
    insecure = config.is_insecure(host) or rule.insecure
    return RegistryPlace(host, path, insecure, origin=False, scheme=parts.scheme, userinfo=user)


def check_mirror(url: str) -> str:
    """:raises InvalidArgument: not an ``http`` or ``https`` URL of a host, with a path at most."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidArgument(f"invalid mirror: {url!r} is not an http or https URL")
    return url.rstrip("/")


def check_insecure(entry: str) -> str:
    """:raises InvalidArgument: not ``host[:port]`` or a network."""
    if "://" in entry:
        raise InvalidArgument(f"invalid insecure registry: {entry!r} should not contain '://'")
    if "/" in entry:
        try:
            ipaddress.ip_network(entry, strict=False)
        except ValueError as e:
            raise InvalidArgument(f"invalid insecure registry: {e}") from e
    return entry


def proxies_from(given: Mapping[str, str], environ: Mapping[str, str]) -> Proxies:
    """Proxies as configured, else as the environment says (upper case first, as Docker's daemon)."""

    def choose(name: str) -> str:
        variable = name.upper().replace("-", "_")
        return given.get(name) or environ.get(variable) or environ.get(variable.lower()) or ""

    for name in ("http-proxy", "https-proxy"):
        if (url := choose(name)) and urlsplit(url).scheme not in ("http", "https"):
            raise InvalidArgument(f"invalid {name}: {urlsplit(url).scheme!r} proxies are not supported")
    none_for = tuple(part.strip().lower() for part in choose("no-proxy").split(",") if part.strip())
    return Proxies(choose("http-proxy"), choose("https-proxy"), none_for)


def _is_direct(host: str, none_for: Sequence[str]) -> bool:
    name, address = host_name(host), address_of(host)
    if name == "localhost" or (address is not None and address.is_loopback):
        return True
    for entry in none_for:
        if entry in ("*", host.lower(), name):
            return True
        bare = entry.removeprefix("*").removeprefix(".")
        if address is None and bare and name.endswith("." + bare):
            return True
        if address is not None and "/" in entry:
            try:
                network = ipaddress.ip_network(entry, strict=False)
            except ValueError:
                continue
            if address.version == network.version and address in network:
                return True
    return False
