"""All networks: rows, and a copy of them in memory for look-up by id, name or prefix."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from wherry.errors import Conflict, Forbidden, InvalidArgument, NotFound
from wherry.model import typed
from wherry.network.types import BUILDS, IPNetwork, Network
from wherry.state.networks import NetworkRow, Networks


class Catalog:
    """Safe to use from any thread. Changes are made inside a transaction, under its lock. A change replaces
    the whole mapping, so that readers need no lock."""

    def __init__(self, rows: Networks) -> None:
        self._rows = rows
        self._networks: dict[str, Network] = {}

    def stored(self) -> list[Network]:
        """The networks in the database; usable before :meth:`load`."""
        return [typed.from_json(r.record, Network) for r in self._rows.networks()]

    def load(self) -> None:
        with self._rows.db.transaction():
            self._networks = {n.id: n for n in self.stored()}

    def put(self, network: Network) -> None:
        """Store a new or changed network. :raises Conflict: another network has its name."""
        record = msgspec.json.encode(network)
        with self._rows.db.transaction():
            self._rows.put_network(
                NetworkRow(network.id, network.name, network.driver, network.created, record)
            )
            self._networks = {**self._networks, network.id: network}

    def claim(self, network: Network, seen: Mapping[str, Network]) -> bool:
        """Store a new network if the networks are still those in ``seen``, a former result of :meth:`all`.

        :returns: whether they are; if not, nothing is stored.
        """
        with self._rows.db.transaction():
            if self._networks is not seen:
                return False
            self.put(network)
        return True

    def remove(self, network: Network) -> None:
        """Delete a network. :raises Forbidden: it has an endpoint, or another network uses its settings."""
        with self._rows.db.transaction():
            users = [n.name for n in self._networks.values() if n.config_from == network.name]
            if network.config_only and users:
                raise Forbidden(
                    f'error while removing network: configuration network "{network.name}" is in use'
                )
            if not self._rows.delete_network(network.id):
                raise Forbidden(f"error while removing network: network {network.name} has active endpoints")
            self._networks = {i: n for i, n in self._networks.items() if i != network.id}

    def all(self) -> Mapping[str, Network]:
        """By id, oldest first."""
        return self._networks

    def taken(self) -> list[IPNetwork]:
        """The subnets of all networks except config-only ones."""
        return [s.network for n in self._networks.values() if not n.config_only for s in n.subnets]

    @property
    def builds(self) -> Network | None:
        """The network of builds, if it exists now."""
        return next((n for n in self._networks.values() if n.hidden), None)

    def get(self, wanted: str) -> Network:
        """A network by its id, name (``default`` is ``bridge``), or unambiguous id prefix.

        :raises NotFound: none matches.
        :raises InvalidArgument: several ids start with it.
        """
        name = "bridge" if wanted == "default" else wanted
        networks = {i: n for i, n in self._networks.items() if not n.hidden}
        if name in networks:
            return networks[name]
        found = [n for n in networks.values() if n.name == name]
        if not found and name:
            found = [n for n in networks.values() if n.id.startswith(name)]
        if len(found) > 1:
            raise InvalidArgument(
                f"network {wanted} is ambiguous ({len(found)} matches found based on ID prefix)"
            )
        if not found:
            raise NotFound(f"network {wanted} not found")
        return found[0]

    def usable(self, wanted: str) -> Network:
        """As :meth:`get`, for a container. :raises Conflict: a network that only holds settings."""
        network = self.get(wanted)
        if network.config_only:
            raise Conflict(f"cannot connect to network {network.name}: it is a configuration-only network")
        return network

    def usable_by_mode(self, wanted: str) -> Network:
        """As :meth:`usable`, for internal sandboxes: they may also use the network of builds."""
        builds = self.builds if wanted == BUILDS else None
        return builds if builds is not None else self.usable(wanted)
