"""The addresses that users can make the hub connect to: public ones, and those that the operator allows."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from wherry.errors import InvalidArgument

PORTS = frozenset({80, 443, 8080, 8443})
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Rules:
    """:ivar networks: allowed besides public addresses, with any port.
    :ivar http: whether plain HTTP is allowed.
    """

    networks: tuple[Network, ...] = field(default=())
    http: bool = False

    def check_url(self, url: str) -> str:
        """Check a URL without resolving its host. :raises InvalidArgument: the hub must not connect to it."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as e:
            raise InvalidArgument(f"invalid URL {url[:100]!r}: {e}") from e
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.username is not None:
            raise InvalidArgument(f"invalid URL {url[:100]!r}: use https://HOST/PATH")
        if parts.scheme == "http" and not self.http:
            raise InvalidArgument("plain http is not allowed: use https, or set webhook-http")
        if port is not None and port not in PORTS and not self.networks:
            raise InvalidArgument(
                f"port {port} is not allowed: use one of {', '.join(map(str, sorted(PORTS)))}"
            )
        return url

    def allows(self, address: str, port: int) -> bool:
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address):
            inside = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo or (None, None))[1]
            parsed = inside or parsed
        if any(parsed.version == network.version and parsed in network for network in self.networks):
            return True
        return parsed.is_global and not parsed.is_multicast and port in PORTS

    def bars(self, host: str, port: int) -> bool:
        """Whether ``host`` is an IP address that is not allowed. Names are checked when they are resolved."""
        return is_literal(host) and not self.allows(host, port)


def is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """:raises InvalidArgument:"""
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as e:
        raise InvalidArgument(f"invalid network: {e}") from e
