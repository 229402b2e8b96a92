"""Create, find and remove networks. ``sandboxes`` deals with the containers on them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace

import msgspec

from wherry.errors import Forbidden, InvalidArgument, WherryError
from wherry.model import typed
from wherry.network import create, ipam
from wherry.network.create import NetworkRequest, NetworkSurroundings
from wherry.network.drivers import Elsewhere, NetworkDriver, Traits
from wherry.network.drivers.bridge import used_subnets
from wherry.network.parts import NetworkParts
from wherry.network.types import DHCP, Network, Owner

_log = logging.getLogger(__name__)
Lines = list[str]


class NetworkManager:
    """Safe to use from any thread that is in the host's network and mount namespaces."""

    def __init__(self, parts: NetworkParts) -> None:
        self._parts = parts
        self._rows = parts.rows
        self._catalog = parts.catalog
        self._drivers = parts.drivers
        self._publishing = parts.publishing

    def list(self) -> list[Network]:
        """Every network, oldest first."""
        return [n for n in self._catalog.all().values() if not n.hidden]

    def get(self, wanted: str) -> Network:
        """A network by its id, name (``default`` is ``bridge``), or unambiguous id prefix.

        :raises NotFound: none matches.
        :raises InvalidArgument: several ids start with it.
        """
        return self._catalog.get(wanted)

    def traits(self, network: Network) -> Traits:
        """The properties that it has because of its driver."""
        return self._drivers.traits(network.driver)

    def publishes(self, network: Network) -> bool:
        """Whether ports of containers on a network can be published."""
        return self.traits(network).publishes and not network.internal

    def drivers(self) -> Lines:
        """The names of all drivers."""
        return self._drivers.names

    def elsewhere(self, network: Network) -> Elsewhere:
        """The other hosts' part of a network."""
        driver = self._drivers.own(network)
        return driver.sharing.elsewhere(network.id) if driver is not None else Elsewhere()

    def status(self, network: Network) -> dict[str, tuple[int, int]]:
        """By subnet: the number of addresses in use or reserved, and of free addresses in its range."""
        return {s.cidr: ipam.status(self._rows, network, s) for s in network.subnets}

    def create(self, request: NetworkRequest) -> tuple[Network, Lines]:
        """Make a network. :returns: it, and warnings.

        :raises InvalidArgument, Forbidden, NotFound, Conflict, Unavailable: it is not possible as requested.
        """
        _check_ipam(request, self._drivers.traits(request.driver or "bridge"))
        request = self._with_defaults(request)
        if request.config_only:
            return self._claim(request, None, {})
        driver = self._drivers.get(request.driver or "bridge")
        with driver.sharing.making(), ExitStack() as undo:
            request, pools = self._pools(request, undo)
            network, warnings = self._claim(request, driver, pools)
            undo.callback(self._forget, network)
            network = self.make(network)
            undo.pop_all()
        return network, warnings

    def make(self, network: Network) -> Network:
        """Make a network that has a row real. :returns: it, with what other hosts chose.

        :raises Conflict, Forbidden, Internal, Unavailable: it is not possible; everything made is removed
            again.
        """
        driver = self._drivers.of(network)
        with ExitStack() as undo:
            made = driver.sharing.create(network)
            undo.callback(self._untell, driver, made)
            if made != network:
                self._catalog.put(made)
            undo.callback(self._publishing.remove_network, made)
            undo.callback(driver.stop, made)
            driver.start(made)
            self._publishing.add_network(made)
            if made.enable_ipv6:
                for line in self._parts.host.enable_forwarding(ipv6=True):
                    _log.info("%s", line)
            undo.pop_all()
        return made

    def remove(self, wanted: str) -> Network:
        """Remove a network that no container is on.

        :raises NotFound: there is none. :raises Forbidden: it is predefined, or in use.
        """
        network = self._catalog.get(wanted)
        if network.predefined:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        users = self._rows.endpoints(network_id=network.id)
        if users:
            names = " ".join(f'(name:"{self._name_of(u.container_id)}" id:"{u.id[:12]}")' for u in users[:8])
            raise Forbidden(
                f"error while removing network: network {network.name} has active endpoints {names}"
            )
        if network.config_only:
            self._catalog.remove(network)
        else:
            self.unmake(network)
        return network

    def unmake(self, network: Network) -> None:
        """Remove a network that nobody owns any more, with its row.

        :raises Forbidden, Internal, Unavailable: it fails.
        """
        if self._drivers.has(network):
            self._unmake(network, self._drivers.of(network))
        else:
            self._forget(network)  # a plugin that is not running must find out by itself
        if network.pools:
            with suppress(WherryError):
                self._parts.ipam(network.ipam_driver).release_pools(network)

    def _unmake(self, network: Network, driver: NetworkDriver) -> None:
        with driver.sharing.making():
            driver.sharing.remove(network)
            self._forget(network)
            # its isolation is removed last, when nothing is left to isolate
            with ExitStack() as after:
                after.callback(self._publishing.remove_network, network)
                driver.stop(network)
            left = [n for n in self._catalog.all().values() if n.driver == network.driver]
            driver.sweep(left, strays=True)

    # -- helpers ---------------------------------------------------------------------------------------

    def _with_defaults(self, request: NetworkRequest) -> NetworkRequest:
        """The request with the configured default options of its driver
        (``default-network-opts``)."""
        said = self._parts.config.network_options.get(request.driver or "bridge")
        if not said or request.config_only or request.config_from:
            return request
        return replace(request, options={**said, **request.options})

    def _pools(self, request: NetworkRequest, undo: ExitStack) -> tuple[NetworkRequest, dict[str, str]]:
        """The request with subnets from its IPAM plugin, if it has one."""
        name = request.ipam_driver or "default"
        if name in ("default", "null", "none", DHCP) or request.config_from:
            return request, {}
        create.check_name(request.name)
        return self._parts.ipam(name).pools(request, undo)

    def _claim(
        self, request: NetworkRequest, driver: NetworkDriver | None, pools: Mapping[str, str]
    ) -> tuple[Network, Lines]:
        """Choose a network that is possible, and insert its row. From then on its name and subnets are
        reserved.

        Questions to the kernel take time, so they are asked with no transaction open. If the set of networks
        has changed meanwhile, everything is decided again.
        """
        traits = driver.traits if driver is not None else self._drivers.traits("bridge")
        local = ipam.local_pool(self._rows.db)
        while True:
            seen = self._catalog.all()
            around = NetworkSurroundings(
                seen,
                self._parts.config,
                self._catalog.taken(),
                used_subnets,
                local,
            )
            network, warnings = create.make(request, around, traits)
            network = msgspec.structs.replace(network, pools=dict(pools))
            if driver is not None:
                network = driver.check(network, list(seen.values()))
            if self._catalog.claim(network, seen):
                return network, warnings

    @staticmethod
    def _untell(driver: NetworkDriver, network: Network) -> None:
        try:
            driver.sharing.remove(network)
        except WherryError as e:
            _log.warning("network %s, which could not be made, is still known to others: %s", network.name, e)

    def _forget(self, network: Network) -> None:
        """If another host has removed it in the same moment, that is no error."""
        if network.id in self._catalog.all():
            self._catalog.remove(network)

    def _name_of(self, container_id: str) -> str:
        rows = self._rows.sandboxes(container_id=container_id)
        owner = typed.from_json(rows[0].record, Owner) if rows else Owner()
        return owner.name or container_id[:12]


def _check_ipam(request: NetworkRequest, traits: Traits) -> None:
    """:raises InvalidArgument: an IPAM driver that does not fit the network."""
    name = request.ipam_driver or "default"
    if name == DHCP and not traits.dhcp:
        raise InvalidArgument(
            "IPAM driver dhcp needs driver macvlan: other networks have no DHCP server of their own"
        )
    if request.config_only and name not in ("default", "null", "none", DHCP):
        raise InvalidArgument(f"a configuration-only network cannot have addresses of plugin {name[:64]}")
    if request.ipam_options and name in ("default", "null", "none", DHCP):
        raise InvalidArgument(
            f"invalid IPAM option {min(request.ipam_options)[:64]!r}: driver {name} has none"
        )
