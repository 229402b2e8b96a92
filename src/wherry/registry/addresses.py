"""Decide which addresses the daemon connects to on behalf of others; checked at the moment of connecting.

A user who asks for a file, a repository or an image chooses the first address; redirects are chosen by the
server there. So a redirect from elsewhere must not lead to this host or its networks. Link-local addresses,
and those at which a cloud gives a machine its credentials, are never asked.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from wherry.errors import Forbidden

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA = tuple(
    map(
        ipaddress.ip_network,
        (
            "169.254.0.0/16",  # link-local (RFC 3927): AWS, Azure, Google Cloud, OpenStack and most others
            "fe80::/10",  # link-local (RFC 4291)
            "fd00:ec2::/32",  # AWS
            "fd20:ce::/32",  # Google Cloud
            "fd00:c1::/32",  # Oracle Cloud
            "fd00:42::42/128",  # Scaleway
            "100.100.100.200/32",  # Alibaba Cloud
            "192.0.0.192/32",  # Oracle Cloud, earlier
            "168.63.129.16/32",  # Azure, its host
        ),
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")


def _read(text: str) -> _Address | None:
    """The address, or the IPv4 address that is embedded in it (RFC 4291, 6052, 3056, 4380)."""
    try:
        found = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv4Address):
        return found
    if found in _NAT64 or (found in _COMPATIBLE and int(found) > 1):
        return ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
    return inner or found


def is_local(address: str) -> bool:
    """Whether an address belongs to this host or to a private network."""
    found = _read(address)
    return found is not None and not found.is_global


def is_metadata(address: str) -> bool:
    """Whether an address is link-local, or a cloud's metadata service."""
    found = _read(address)
    return found is not None and any(found in network for network in _METADATA)


class Guard(AbstractResolver):
    """Resolves names; addresses in :data:`local` networks are only returned where they are allowed.

    aiohttp calls no resolver if the host is an address, so call :meth:`check` for every host of a URL as
    well.
    """

    def __init__(self, *, proxies: Collection[str] = ()) -> None:
        """:param proxies: hosts of the administrator's proxies, which may be anywhere."""
        self._inner = ThreadedResolver()
        self._proxies = proxies
        self.local = True

    def check(self, host: str, address: str = "") -> None:
        """:raises Forbidden: ``host`` is an address, or has one, that must not be connected to."""
        if is_metadata(address or host):
            raise Forbidden(f"{host} is a link-local or metadata address, which is not asked for anything")
        if not self.local and is_local(address or host):
            raise Forbidden(f"{host} is a local address, where a redirect may not lead")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """:raises Forbidden: one of its addresses must not be connected to. :raises OSError: it has none."""
        found = await self._inner.resolve(host, port, family)
        if host not in self._proxies:
            for one in found:
                self.check(host, one["host"])
        return found

    async def is_local(self, host: str) -> bool:
        """Whether all addresses of a name are local. An unknown name is not local."""
        if is_local(host):
            return True
        try:
            found = await self.resolve(host)
        except OSError:
            return False  # the proxy may be able to resolve it
        return bool(found) and all(is_local(one["host"]) for one in found)

    async def close(self) -> None:
        await self._inner.close()
