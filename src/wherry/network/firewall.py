"""The daemon's nft table, kept up to date: applies the text from ``ruleset`` in transactions.

The number of rules does not grow with networks, containers or ports: those are elements of sets and maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from wherry.linux.nft import Nft, NftError
from wherry.model import typed
from wherry.network import ruleset
from wherry.network.ruleset import Bridged as Bridged
from wherry.network.ruleset import Elements
from wherry.network.ruleset import FamilyRules as FamilyRules
from wherry.network.types import Instance
from wherry.state.networks import PublishedRow


class _Chain(msgspec.Struct, frozen=True):
    family: str
    table: str
    name: str
    hook: str = ""
    policy: str = ""


class _Entry(msgspec.Struct, frozen=True):
    chain: _Chain | None = None


class _Listing(msgspec.Struct, frozen=True):
    nftables: list[_Entry]


class Firewall:
    """Every method is one transaction, unless it says otherwise."""

    def __init__(self, instance: Instance, nft: Nft, *, obey_host: bool = False) -> None:
        self._table = instance.table
        self._root = instance.root
        self._nft = nft
        self._obey_host = obey_host

    def rebuild(
        self,
        bridges: Sequence[Bridged],
        ports: Iterable[Sequence[PublishedRow]],
        *,
        sealed: int = 0,
        relay: int = 0,
        missing: bool = False,
    ) -> None:
        """Replace the whole table. Existing connections go on, because the kernel tracks them separately.

        :param ports: grouped by container. :param sealed, relay: as in ``ruleset.head``.
        :param missing: there is no table, so all networks are unprotected now. Then the isolation is applied
            first, and published ports follow in a second transaction.
        :raises Internal: the kernel refused, with nft's message.
        """
        text = ruleset.head(
            self._table, obey_host=self._obey_host, sealed=sealed, relay=relay, root=self._root
        )
        text += self._text("add", ruleset.together(ruleset.of_network(b) for b in bridges))
        published = self._text("add", ruleset.together(ruleset.of_ports(rows) for rows in ports))
        if missing:
            self._nft.run(text)
            if published:
                self._nft.run(published)
        else:
            self._nft.run(text + published)

    def change(self, before: Elements, after: Elements) -> None:
        """Remove what is only in ``before``, and add what is only in ``after``.

        :raises NftError: the table does not exist, or was changed by another program.
        """
        text = self._text("delete", ruleset.minus(before, after))
        text += self._text("add", ruleset.minus(after, before))
        if text:
            self._nft.run(text)

    def remove_elements(self, elements: Elements) -> None:
        """Remove elements, if necessary in one transaction each; missing ones are no error."""
        text = self._text("delete", elements)
        if not text:
            return
        try:
            self._nft.run(text)
            return
        except NftError as e:
            if not e.missing:
                raise
        for name, found in elements.items():
            for element in found:
                try:
                    self._nft.run(self._text("delete", {name: frozenset((element,))}))
                except NftError as e:
                    if not e.missing:
                        raise

    def drops_of_others(self) -> list[str]:
        """Chains of other tables that drop forwarded packets by default, as ``family table chain``. Then
        containers cannot reach other hosts. We leave that to the owner of the chain."""
        return foreign_drops(self._nft, self._table)

    def remove(self) -> None:
        """Remove the table."""
        self._nft.run(f"add table inet {self._table}\ndelete table inet {self._table}\n")

    def _text(self, verb: str, elements: Elements) -> str:
        return ruleset.commands(self._table, verb, elements)


def foreign_drops(nft: Nft, own: str = "") -> list[str]:
    """Chains that drop forwarded packets by default, as ``family table chain``. :param own: a table to leave
    out; empty: all that are wherry's."""
    listing = typed.from_json(nft.run("list chains", json=True), _Listing)
    return [
        f"{c.family} {c.table} {c.name}"
        for c in (entry.chain for entry in listing.nftables)
        if c is not None and (c.hook, c.policy) == ("forward", "drop")
        if (c.table != own if own else not c.table.startswith("wherry"))
    ]
