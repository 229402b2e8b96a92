from __future__ import annotations

from pathlib import Path

import pytest
from databases import open_database

from wherry.errors import Conflict
from wherry.state.networks import SEVERAL_NETWORKS, EndpointRow, NetworkRow, Networks, PublishedRow
from wherry.state.schema import MIGRATIONS


def rows(path: Path | str = ":memory:") -> Networks:
    networks = Networks(open_database(path, MIGRATIONS))
    networks.put_network(NetworkRow("n1", "one", "bridge", 1, b"{}"))
    networks.insert_sandbox("c1", 1, b'{"name":"web"}')
    return networks


def test_a_file_from_before_keeps_its_networks(tmp_path: Path) -> None:
    before = MIGRATIONS[: MIGRATIONS.index(SEVERAL_NETWORKS)]
    old = open_database(tmp_path / "old.db", before)
    old.execute("INSERT INTO networks VALUES ('n1', 'bridge', 'bridge', 1, x'7b7d', '172.17.0.9')")
    old.execute("INSERT INTO sandboxes VALUES ('c1', 1)")
    old.execute("INSERT INTO endpoints VALUES ('e1', 'n1', 'c1', '172.17.0.9', x'7b7d')")
    old.execute("INSERT INTO published VALUES ('tcp', '0.0.0.0', 8080, 'c1', '172.17.0.9', 80)")
    old.close()
    networks = Networks(open_database(tmp_path / "old.db", MIGRATIONS))
    assert networks.sandboxes()[0].record == b"{}"
    assert networks.endpoints() == [EndpointRow("e1", "n1", "c1", "172.17.0.9", b"{}")]
    assert networks.published() == [PublishedRow("tcp", "0.0.0.0", 8080, "c1", "172.17.0.9", 80)]


def test_addresses_are_nobody_elses() -> None:
    networks = rows()
    networks.insert_sandbox("c2", 2)
    first = EndpointRow("e1", "n1", "c1", "10.0.0.2", b"{}", "fd00::2", "02:00:00:00:00:01")
    assert networks.insert_endpoint(first)
    for ip, ip6, mac in (
        ("10.0.0.2", None, None),
        (None, "fd00::2", None),
        (None, None, "02:00:00:00:00:01"),
    ):
        assert not networks.insert_endpoint(EndpointRow("e2", "n1", "c2", ip, b"{}", ip6, mac))
    assert not networks.insert_endpoint(EndpointRow("e2", "n1", "c1", None, b"{}")), "one place on a network"
    assert not networks.insert_endpoint(EndpointRow("e2", "nx", "c2", None, b"{}")), "no such network"
    assert networks.insert_endpoint(EndpointRow("e2", "n1", "c2", None, b"{}"))
    assert networks.address_taken("n1", "10.0.0.2") and networks.address_taken("n1", "fd00::2")
    assert networks.mac_taken("n1", "02:00:00:00:00:01") and not networks.mac_taken("n2", "02:00:00:00:00:01")
    assert networks.addresses_in_use("n1", 6) == ["fd00::2"]


def test_a_network_in_use_stays() -> None:
    networks = rows()
    networks.set_cursor("n1", "10.0.0.0/24", "10.0.0.9")
    networks.set_cursor("n1", "10.0.0.0/24", "10.0.0.10")
    assert networks.cursor("n1", "10.0.0.0/24") == "10.0.0.10"
    networks.insert_endpoint(EndpointRow("e1", "n1", "c1", None, b"{}"))
    assert not networks.delete_network("n1")
    networks.delete_endpoint("e1")
    assert networks.delete_network("n1")
    assert networks.cursor("n1", "10.0.0.0/24") == ""
    assert networks.networks() == []


def test_names_are_unique() -> None:
    with pytest.raises(Conflict, match="network with name one already exists"):
        rows().put_network(NetworkRow("n2", "one", "bridge", 2, b"{}"))


def test_ports_that_stay_what_they_are() -> None:
    networks = rows()
    ports = [PublishedRow("tcp", "0.0.0.0", n, "c1", "10.0.0.2", 80 if n == 1 else n) for n in (1, 2, 3)]
    networks.insert_published(ports)
    assert networks.published(container_id="c1", kept=True) == ports[1:]
    networks.delete_published(ports[:2])
    assert networks.published() == ports[2:]
