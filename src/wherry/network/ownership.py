"""What on this host belongs to this daemon: its marks on kernel objects, and the removal of objects that are
no longer needed.

object                    mark
bridges, VXLAN and VLAN   alias ``wherry:<key>:network:<network id>``
devices, shims
veth pairs                alias ``wherry:<key>:<container id>``
nft table                 its name, ``Instance.table``; its comment says the root
IPsec                     the request id, which is made from the key
namespaces                pinned below ``<run>/netns``

The key identifies the daemon's root. So a mark proves for which root an object was made, even if the database
there was replaced since. An abstract socket name, which only one process can hold, proves that no other
daemon uses the same key in this network namespace (:meth:`Marks.claim`). Given both, an object with the mark
but without a row belongs to nobody, and is removed.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wherry.errors import Conflict, Internal
from wherry.linux import netns
from wherry.linux.netlink import NetlinkError, NetlinkSocket
from wherry.linux.nft import table_exists
from wherry.linux.rtnetlink import Link, delete_link, links
from wherry.network.types import Instance
from wherry.state.networks import EndpointRow

Lines = list[str]


class Marks:
    """The marked objects of one instance. Not safe for several threads at once."""

    def __init__(self, instance: Instance, directory: Path) -> None:
        """:param directory: where namespaces are pinned."""
        self._instance = instance
        self._directory = directory
        self._networks = instance.alias("network:")
        self._name: socket.socket | None = None
        self._looked: list[Link] | None = None

    # -- the claim -------------------------------------------------------------------------------------

    def claim(self) -> None:
        """Become the only daemon of this instance in the network namespace, until :meth:`release`.
        Idempotent.

        The kernel keeps abstract names (unix(7)) separately for each network namespace, and frees them when
        the process ends in any way.

        :raises Conflict: another process holds the name.
        """
        if self._name is not None:
            return
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            name.bind(f"\0wherry/network/{self._instance.key}")
        except OSError as e:
            name.close()
            if e.errno != errno.EADDRINUSE:
                raise Internal(f"cannot claim the networks of this daemon: {e.strerror}") from e
            raise Conflict(
                f"cannot use interface {self._instance.bridge} and table {self._instance.table}: "
                "another daemon with the same root path uses them"
            ) from e
        self._name = name

    def release(self) -> None:
        if self._name is not None:
            self._name.close()
            self._name = None

    def networks_in_use(self, rows: Iterable[EndpointRow]) -> set[str]:
        """Ids of networks with endpoints whose interfaces exist."""
        present = {link.alias for link in self._ours()}
        return {r.network_id for r in rows if self._instance.alias(r.container_id) in present}

    def indexes(self) -> set[int]:
        """Indexes of the interfaces that are ours."""
        return {link.index for link in self._ours()}

    # -- leftovers -------------------------------------------------------------------------------------

    def remove_networks(self, known: Collection[str]) -> Lines:
        """Remove devices of networks that are not ``known``:
        from an interrupted removal, or of a database that is lost."""
        lines = []
        for link in self._ours():
            network_id = link.alias.removeprefix(self._networks)
            if link.alias.startswith(self._networks) and network_id not in known:
                _delete(link)
                lines.append(f"removed an interface without a network: {link.name}")
        return lines

    def sweep(self, known: Collection[str]) -> Lines:
        """Remove interfaces and pins that belong to none of the containers ``known``."""
        lines = []
        for entry in sorted(self._directory.iterdir()) if self._directory.is_dir() else ():
            if entry.name not in known:
                netns.unpin(entry)
                lines.append(f"removed a network namespace without a container: {entry.name[:12]}")
        for link in self._ours():
            owner = link.alias.removeprefix(self._instance.alias_prefix)
            if link.kind == "veth" and owner not in known:
                _delete(link)
                lines.append(f"removed an interface without a container: {link.name}")
        return lines

    def remaining(self) -> Lines:
        """What this instance has on the host, as text; ``Driver.remains`` reports the rest."""
        found = [f"interface {link.name}" for link in self._ours()]
        if table_exists(self._instance.table):
            found.append(f"nft table inet {self._instance.table}")
        if self._directory.is_dir():
            pins = [entry.name[:12] for entry in sorted(self._directory.iterdir())]
            found += [f"network namespace {name}" for name in pins] or [f"directory {self._directory}"]
        return found

    @contextmanager
    def one_look(self) -> Iterator[None]:
        """Inside of this the interfaces are listed once: with a thousand containers that takes 0.1 s."""
        self._looked = self._ours()
        try:
            yield
        finally:
            self._looked = None

    def _ours(self) -> list[Link]:
        if self._looked is not None:
            return self._looked
        with NetlinkSocket() as sock:
            return [link for link in links(sock) if link.alias.startswith(self._instance.alias_prefix)]


def whose(link: Link) -> str:
    """The owner of an interface that is not ours, as text."""
    if link.alias.startswith("wherry:"):
        return f"another daemon of wherry ({link.alias[:80]})"
    return "another program"


def _delete(link: Link) -> None:
    """If it is gone already, alone or with its pair's other end, that is no error."""
    try:
        with NetlinkSocket() as sock:
            sock.transact(delete_link(link.index))
    except NetlinkError as e:
        if e.errno != errno.ENODEV:
            raise Internal(f"cannot remove interface {link.name}: {e.strerror or e}") from e
