"""The client's address of a request, and our own address for clients: from a front proxy's headers, if the
proxy is trusted.

Anybody can send ``X-Forwarded-For``. It is read from the right, and an entry is only used if a trusted proxy
wrote it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aiohttp import web

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """:raises InvalidArgument:"""
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as e:
        raise InvalidArgument(f"invalid network of a trusted proxy: {e}") from e


@dataclass(frozen=True)
class Trusted:
    """The networks of trusted proxies."""

    proxies: tuple[Network, ...] = ()

    def _is_proxy(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self.proxies)

    def client(self, request: web.BaseRequest) -> str:
        """The right-most address that does not belong to a trusted proxy; malformed text counts as an unknown
        client."""
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        address = str(peer[0]) if isinstance(peer, tuple) and peer else ""
        if not self.proxies or not self._is_proxy(address):
            return address
        for hop in reversed(request.headers.get("X-Forwarded-For", "")[-2000:].split(",")):
            hop = hop.strip().strip("[]")
            try:
                address = str(ipaddress.ip_address(hop))
            except ValueError:
                return address
            if not self._is_proxy(address):
                return address
        return address

    def network(self, request: web.BaseRequest) -> str:
        """The network of the client, to which limits apply."""
        return network_of(self.client(request))

    def base(self, request: web.BaseRequest) -> str:
        """``https://hub.example``: the address that the client used, for the address of the token service."""
        scheme, host = request.scheme, request.headers.get("Host", "")
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        if self.proxies and isinstance(peer, tuple) and peer and self._is_proxy(str(peer[0])):
            said = request.headers.get("X-Forwarded-Proto", "")
            scheme = said if said in ("http", "https") else scheme
            host = request.headers.get("X-Forwarded-Host", host)
        if not host or not all(c.isalnum() or c in ".-:[]_" for c in host):
            host = "localhost"
        return f"{scheme}://{host}"


def network_of(address: str) -> str:
    """The network that shares a limit: an IPv4 /24, an IPv6 /56."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    bits = 24 if isinstance(parsed, ipaddress.IPv4Address) else 56
    return str(ipaddress.ip_network((parsed, bits), strict=False))
