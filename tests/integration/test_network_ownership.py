"""Whose things on the host are, by their marks: after a database or a root is lost, and at a teardown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from network_lab import manager, on_a_host, shell

from wherry.errors import Conflict, Unavailable
from wherry.linux import netns
from wherry.linux import rtnetlink as rt
from wherry.linux.netlink import NetlinkSocket
from wherry.network import room
from wherry.network.create import NetworkRequest
from wherry.network.room import NetworkRoom
from wherry.network.types import Instance, PortMapping, Subnet
from wherry.state import schema
from wherry.state.database import Database

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

INSTANCE = "00c0ffee"


def links() -> set[str]:
    with NetlinkSocket() as sock:
        return {link.name for link in rt.links(sock)}


def lose_database(directory: Path) -> None:
    for file in directory.glob("wherry.db*"):
        file.unlink()


def populated(directory: Path) -> NetworkRoom:
    """A daemon with a kind of everything."""
    m = manager(directory, instance=INSTANCE)
    m.start()
    m.networks.create(NetworkRequest(name="named", options={"com.docker.network.bridge.name": "office"}))
    m.networks.create(NetworkRequest(name="plain", subnets=(Subnet(cidr="10.9.0.0/24"),)))
    shell("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    wire = NetworkRequest(
        name="wire",
        driver="macvlan",
        subnets=(Subnet(cidr="10.8.0.0/24"),),
        options={"parent": "up0", "host_shim": "10.8.0.250"},
    )
    m.networks.create(wire)
    m.sandboxes.create("a" * 64, name="one", ports=[PortMapping(container_port=80, host_port=8080)])
    m.sandboxes.create("b" * 64, name="two", network_mode="named")
    return m


@on_a_host
def test_a_daemon_without_its_database_takes_over_what_has_its_mark(tmp_path: Path) -> None:
    before = populated(tmp_path)
    subnet = before.networks.get("bridge").subnets[0].cidr
    old = before.networks.get("bridge").id
    before.shutdown()
    left = links()
    lose_database(tmp_path)

    after = manager(tmp_path, instance=INSTANCE)
    lines = after.start() + after.restore({})
    gone = left - links()
    assert {
        "office",
        f"wm-{before.networks.get('wire').id[:12]}",
        f"br-{before.networks.get('plain').id[:12]}",
    } <= gone
    assert links() == {"lo", "up0", "up1", "wh-00c0ffee"}
    assert "removed an interface without a network: wh-00c0ffee" in lines
    assert not list((tmp_path / "run" / "netns").iterdir())
    assert after.networks.get("bridge").id != old
    assert after.networks.get("bridge").subnets[0].cidr == subnet, "its subnet is free again"
    assert f"network:{after.networks.get('bridge').id}" in shell("ip", "link", "show", "wh-00c0ffee")
    assert "8080" not in shell("nft", "list", "ruleset")
    assert after.networks.create(NetworkRequest(name="plain", subnets=(Subnet(cidr="10.9.0.0/24"),)))[1] == []
    after.sandboxes.create("c" * 64, name="three")
    after.shutdown()


@on_a_host
def test_a_database_put_back_finds_its_networks_again(tmp_path: Path) -> None:
    first = populated(tmp_path)
    first.shutdown()
    first.parts.rows.db.close()
    kept = {file.name: file.read_bytes() for file in tmp_path.glob("wherry.db*")}
    lose_database(tmp_path)
    between = manager(tmp_path, instance=INSTANCE)
    between.start()
    between.restore({})
    between.shutdown()
    between.parts.rows.db.close()
    lose_database(tmp_path)
    for name, content in kept.items():
        (tmp_path / name).write_bytes(content)

    last = manager(tmp_path, instance=INSTANCE)
    last.start()
    last.restore({})
    assert {"office", "wh-00c0ffee", f"br-{last.networks.get('plain').id[:12]}"} <= links()
    assert last.networks.get("bridge") == first.networks.get("bridge")
    last.sandboxes.create("c" * 64, name="three", network_mode="named")
    last.shutdown()


@pytest.mark.parametrize("known", [True, False])
@on_a_host
def test_teardown_removes_all_of_it_with_and_without_the_database(tmp_path: Path, known: bool) -> None:
    populated(tmp_path).shutdown()
    (tmp_path / "other").mkdir()
    other = manager(tmp_path / "other", instance="0badcafe")
    other.start()
    if not known:
        lose_database(tmp_path)
    manager(tmp_path, instance=INSTANCE).teardown()
    assert links() == {"lo", "up0", "up1", "wh-0badcafe"}
    assert shell("nft", "list", "tables").split() == ["table", "inet", "wherry_0badcafe"]
    assert not (tmp_path / "run" / "netns").exists()
    other.teardown()


@on_a_host
def test_teardown_says_what_it_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    m = populated(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError("the kernel is tired")

    with monkeypatch.context() as patch:
        patch.setattr(netns, "unpin", refuse)
        patch.setattr("wherry.network.ownership.delete_link", refuse)
        with pytest.raises(Unavailable) as e:
            m.teardown()
    for words in ("interface veth", "network namespace aaaaaaaaaaaa", "the kernel is tired"):
        assert words in str(e.value)
    manager(tmp_path, instance=INSTANCE).teardown()
    assert links() == {"lo", "up0", "up1"}


@on_a_host
def test_one_daemon_has_the_names(tmp_path: Path) -> None:
    m = manager(tmp_path, instance=INSTANCE)
    m.start()
    m.start()
    (tmp_path / "copy").mkdir()
    second = manager(tmp_path / "copy", instance=INSTANCE)
    for attempt in (second.start, second.teardown):
        with pytest.raises(Conflict, match="another daemon with the same root path uses them"):
            attempt()
    assert "wh-00c0ffee" in links()
    m.shutdown()
    second.start()
    second.teardown()


@on_a_host
def test_the_table_says_its_root(tmp_path: Path) -> None:
    for root, shown in (("/var/lib/wherry", True), ('/odd"; }', False)):
        db = Database(tmp_path / "wherry.db", schema.MIGRATIONS)
        m = room.wire(db, tmp_path / "run", instance=Instance(INSTANCE, root))
        m.start()
        assert (
            f'comment "root {root}"' in shell("nft", "list", "table", "inet", m.parts.instance.table)
        ) == shown
        m.teardown()
        db.close()
