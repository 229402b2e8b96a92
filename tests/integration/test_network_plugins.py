"""Plugins that make networks and hand out addresses: an example of each, on a socket, by their protocol."""

from __future__ import annotations

import json
import os
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from network_lab import ask, footprint, on_a_host, serve, shell
from test_networks_kernel import container, ip, network, resolve

from wherry.errors import Internal, InvalidArgument, NotFound, Unavailable
from wherry.linux.plugins import Directories, Plugins
from wherry.model.container import EndpointIpamConfig, EndpointRequest
from wherry.network import room
from wherry.network.room import NetworkRoom
from wherry.network.types import Instance, Subnet
from wherry.state import schema
from wherry.state.database import Database

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


class ExamplePlugin:
    """Networks that are bridges, and addresses that count up from ``.100``; remembers what it was told."""

    def __init__(self, path: Path) -> None:
        self.calls: list[str] = []
        self.networks: dict[str, str] = {}
        self.pools: dict[str, int] = {}
        self.refuse = ""
        plugin = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
                method = self.path.strip("/")
                plugin.calls.append(method)
                if method == plugin.refuse:
                    status, answer = 500, {"Err": "out of order"}
                else:
                    status, answer = 200, getattr(plugin, method.replace(".", "_"))(body) or {}
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def address_string(self) -> str:
                return "daemon"

            def log_message(self, *_: object) -> None:
                pass

        self.server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    # ---- who it is -------------------------------------------------------------------------------------

    def Plugin_Activate(self, _body: dict[str, Any]) -> dict[str, Any]:
        return {"Implements": ["NetworkDriver", "IpamDriver"]}

    # ---- networks --------------------------------------------------------------------------------------

    def NetworkDriver_CreateNetwork(self, body: dict[str, Any]) -> None:
        name = f"ex-{body['NetworkID'][:8]}"
        shell("ip", "link", "add", name, "type", "bridge")
        shell("ip", "addr", "add", body["IPv4Data"][0]["Gateway"], "dev", name)
        shell("ip", "link", "set", name, "up")
        self.networks[body["NetworkID"]] = name

    def NetworkDriver_DeleteNetwork(self, body: dict[str, Any]) -> None:
        shell("ip", "link", "del", self.networks.pop(body["NetworkID"]))

    def NetworkDriver_CreateEndpoint(self, body: dict[str, Any]) -> dict[str, Any]:
        assert body["Interface"]["Address"]
        return {"Interface": {}}

    def NetworkDriver_DeleteEndpoint(self, _body: dict[str, Any]) -> None:
        pass

    def NetworkDriver_Join(self, body: dict[str, Any]) -> dict[str, Any]:
        assert Path(body["SandboxKey"]).exists()
        short = body["EndpointID"][:8]
        shell("ip", "link", "add", f"exh{short}", "type", "veth", "peer", "name", f"exc{short}")
        shell("ip", "link", "set", f"exh{short}", "master", self.networks[body["NetworkID"]], "up")
        route = {"Destination": "203.0.113.0/24", "RouteType": 1}
        return {"InterfaceName": {"SrcName": f"exc{short}", "DstPrefix": "eth"}, "StaticRoutes": [route]}

    def NetworkDriver_Leave(self, _body: dict[str, Any]) -> None:
        pass

    # ---- addresses -------------------------------------------------------------------------------------

    def IpamDriver_GetDefaultAddressSpaces(self, _body: dict[str, Any]) -> dict[str, Any]:
        return {"LocalDefaultAddressSpace": "here", "GlobalDefaultAddressSpace": "everywhere"}

    def IpamDriver_RequestPool(self, body: dict[str, Any]) -> dict[str, Any]:
        assert body["AddressSpace"] == "here"
        pool = body["Pool"] or "10.77.0.0/24"
        self.pools[pool] = 100
        return {"PoolID": pool, "Pool": pool, "Data": {}}

    def IpamDriver_ReleasePool(self, body: dict[str, Any]) -> None:
        self.pools.pop(body["PoolID"])

    def IpamDriver_RequestAddress(self, body: dict[str, Any]) -> dict[str, Any]:
        base = body["PoolID"].rpartition(".")[0]
        if (body.get("Options") or {}).get("RequestAddressType"):
            return {"Address": f"{base}.1/24"}
        if body["Address"]:
            return {"Address": f"{body['Address']}/24"}
        self.pools[body["PoolID"]] += 1
        return {"Address": f"{base}.{self.pools[body['PoolID']]}/24"}

    def IpamDriver_ReleaseAddress(self, _body: dict[str, Any]) -> None:
        pass


def started(directory: Path) -> tuple[NetworkRoom, ExamplePlugin]:
    (directory / "plugins").mkdir(exist_ok=True)
    plugin = ExamplePlugin(directory / "plugins" / "example.sock")
    return manager(directory), plugin


def manager(directory: Path) -> NetworkRoom:
    places = Directories(sockets=(directory / "plugins",), specs=(directory / "specs",))
    db = Database(directory / "wherry.db", schema.MIGRATIONS)
    m = room.wire(db, directory / "run", instance=Instance("default"), plugins=Plugins(places))
    m.start()
    return m


@on_a_host
def test_a_network_of_a_plugin(tmp_path: Path) -> None:
    m, plugin = started(tmp_path)
    before = footprint(tmp_path)
    network(m, "theirs", driver="example", ipam_driver="example")
    web, client = container(m, "theirs", name="web"), container(m, "theirs", name="client")
    assert (ip(web), web.endpoints[0].gateway) == ("10.77.0.101", "10.77.0.1")
    serve(web.path, 80, "web")
    assert ask(client.path, ip(web), 80) == f"web {ip(client)}"
    assert resolve(client, "web") == [ip(web)]
    routes = shell("ip", "route", where=web.path)
    assert "default via 10.77.0.1 dev eth0" in routes and "203.0.113.0/24 dev eth0" in routes
    wanted = EndpointRequest(ipam_config=EndpointIpamConfig(ipv4_address="10.77.0.9"))
    third = m.sandboxes.create("f" * 64, endpoints={"theirs": wanted})
    assert ip(third) == "10.77.0.9"
    # a daemon that starts again finds the plugin again
    m.shutdown()
    m = manager(tmp_path)
    assert m.restore({b.container_id: 0 for b in (web, client, third)}) == []
    for box in (web, client, third):
        m.sandboxes.delete(box.container_id)
    m.settle()
    assert plugin.calls.count("NetworkDriver.Leave") == plugin.calls.count("NetworkDriver.Join") == 3
    assert plugin.calls.count("IpamDriver.ReleaseAddress") == 3
    m.networks.remove("theirs")
    assert (plugin.networks, plugin.pools) == ({}, {})
    after = footprint(tmp_path)
    assert (after["links"], after["rows"], after["pins"]) == (before["links"], before["rows"], before["pins"])


@on_a_host
def test_addresses_of_a_plugin_on_a_bridge(tmp_path: Path) -> None:
    m, plugin = started(tmp_path)
    network(m, "mine", ipam_driver="example", subnets=(Subnet(cidr="10.88.0.0/24"),), ipam_options={"a": "b"})
    box = container(m, "mine")
    assert (ip(box), box.endpoints[0].gateway) == ("10.88.0.101", "10.88.0.1")
    m.sandboxes.delete(box.container_id)
    m.networks.remove("mine")
    assert plugin.pools == {}


@pytest.mark.parametrize(
    "method",
    [
        "IpamDriver.RequestPool",
        "NetworkDriver.CreateNetwork",
        "IpamDriver.RequestAddress",
        "NetworkDriver.CreateEndpoint",
        "NetworkDriver.Join",
    ],
)
@on_a_host
def test_refusals_leave_nothing(tmp_path: Path, method: str) -> None:
    m, plugin = started(tmp_path)
    before = footprint(tmp_path)
    plugin.refuse = method
    with pytest.raises(Internal, match=f"plugin example: {method}: out of order"):
        network(m, "theirs", driver="example", ipam_driver="example")
        container(m, "theirs")
    if "theirs" in {n.name for n in m.networks.list()}:
        m.networks.remove("theirs")
    m.settle()
    assert (plugin.networks, plugin.pools) == ({}, {})
    assert footprint(tmp_path) == before


@on_a_host
def test_plugins_that_are_not_there(tmp_path: Path) -> None:
    m, plugin = started(tmp_path)
    for name in ("nope", "../example", ""):
        with pytest.raises(NotFound, match="not found"):
            Plugins(Directories(sockets=(tmp_path / "plugins",), specs=())).find(name, "NetworkDriver")
    network(m, "theirs", driver="example", ipam_driver="example")
    plugin.server.shutdown()
    plugin.server.server_close()
    with pytest.raises(Unavailable, match="plugin example does not answer"):
        container(m, "theirs")
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "other.json").write_text("{}")
    places = Directories(sockets=(), specs=(tmp_path / "specs",))
    with pytest.raises(Internal, match="cannot read the description of plugin other"):
        Plugins(places).find("other", "NetworkDriver")
    with pytest.raises(InvalidArgument, match="invalid IPAM option 'a'"):
        network(m, "x", ipam_options={"a": "b"})
