"""The network driver suite on every driver that has namespaces to furnish."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

from network_driver import NetworkDriverSuite, links
from network_lab import on_a_host, shell

from wherry.errors import Internal
from wherry.network.cluster.records import Remote
from wherry.network.drivers.bridge import BridgeDriver
from wherry.network.drivers.host import HostDriver
from wherry.network.drivers.none import NoneDriver
from wherry.network.drivers.overlay import OverlayDriver
from wherry.network.drivers.vlans import MacvlanDriver
from wherry.network.ipam import mac_for
from wherry.network.types import Endpoint, Instance, Network, Subnet

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


class TestNone(NetworkDriverSuite):
    driver = NoneDriver()
    network = Network(id="a" * 64, name="none", driver="null", created=1)

    def endpoint(self, number: int) -> Endpoint:
        owner = f"{number:064x}"
        return Endpoint(id=owner, network_id=self.network.id, network_name="none", container_id=owner)


class TestBridge(NetworkDriverSuite):
    driver = BridgeDriver(Instance("default"))
    network = Network(
        id="b" * 64,
        name="bridge",
        driver="bridge",
        created=1,
        subnets=(Subnet(cidr="10.5.0.0/24", gateway="10.5.0.1"),),
        bridge_name="wherry0",
    )

    def endpoint(self, number: int) -> Endpoint:
        owner, ip = f"{number:064x}", f"10.5.0.{number + 1}"
        return Endpoint(
            id=owner,
            network_id=self.network.id,
            network_name="bridge",
            container_id=owner,
            ip=ip,
            prefix_len=24,
            gateway="10.5.0.1",
            mac=mac_for(ip),
            ifname="eth0",
            host_ifname=f"veth{number:07x}",
        )

    @pytest.mark.parametrize(
        "make",
        [
            ("link", "add", "wherry0", "type", "veth", "peer", "name", "other"),
            ("link", "add", "wherry0", "alias", "somebody", "type", "bridge"),
        ],
    )
    @on_a_host
    def test_interface_of_another_is_left_alone(self, make: tuple[str, ...]) -> None:
        shell("ip", *[word for word in make if word not in ("alias", "somebody")])
        if "alias" in make:
            shell("ip", "link", "set", "wherry0", "alias", "somebody")
        with pytest.raises(Internal, match="interface wherry0 belongs to another"):
            self.driver.start(self.network)
        self.driver.stop(self.network)
        assert "wherry0" in links()

    @on_a_host
    def test_a_name_that_a_user_chose_is_not_ours_without_a_mark(self) -> None:
        network = msgspec.structs.replace(self.network, bridge_name="office")
        shell("ip", "link", "add", "office", "type", "bridge")
        with pytest.raises(Internal, match="interface office belongs to another program"):
            self.driver.start(network)
        shell("ip", "link", "set", "office", "alias", "wherry:00c0ffee:network:" + "c" * 64)
        with pytest.raises(Internal, match=r"office belongs to another daemon of wherry \(wherry:00c0ffee:"):
            self.driver.start(network)
        self.driver.stop(network)
        assert "office" in links()
        shell("ip", "link", "del", "office")
        # one that was cut short between being made and being marked
        shell("ip", "link", "add", f"br-{self.network.id[:12]}", "type", "bridge")
        self.driver.start(network)
        assert links() == ["lo", "office"]
        assert f"alias wherry:default:network:{network.id}" in shell("ip", "link", "show", "office")
        self.driver.stop(network)
        assert links() == ["lo"]

    @on_a_host
    def test_bridge_of_another_address_is_made_anew(self) -> None:
        self.driver.start(self.network)
        shell("ip", "addr", "flush", "dev", "wherry0")
        shell("ip", "addr", "add", "10.6.0.1/24", "dev", "wherry0")
        self.driver.start(self.network)
        assert "10.5.0.1/24" in shell("ip", "-br", "addr", "show", "wherry0")
        assert "10.6" not in shell("ip", "-br", "addr", "show", "wherry0")


class TestMacvlan(NetworkDriverSuite):
    driver = MacvlanDriver(Instance("default"))
    network = Network(
        id="d" * 64,
        name="wire",
        driver="macvlan",
        created=1,
        subnets=(Subnet(cidr="10.7.0.0/24", gateway="10.7.0.1"),),
        options={"parent": "up0", "host_shim": "10.7.0.250"},
    )

    def prepare(self) -> None:
        shell("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
        for name in ("up0", "up1"):
            shell("ip", "link", "set", name, "up")

    def endpoint(self, number: int) -> Endpoint:
        owner, ip = f"{number:064x}", f"10.7.0.{number + 1}"
        return Endpoint(
            id=owner,
            network_id=self.network.id,
            network_name="wire",
            container_id=owner,
            ip=ip,
            prefix_len=24,
            mac=mac_for(ip),
            ifname="eth0",
        )


class TestOverlay(NetworkDriverSuite):
    driver = OverlayDriver(Instance("default"), "192.0.2.1")
    network = Network(
        id="e" * 64,
        name="wide",
        driver="overlay",
        created=1,
        subnets=(Subnet(cidr="10.5.0.0/24", gateway="10.5.0.1"),),
        options={"com.docker.network.driver.overlay.vxlanid_list": "4096"},
        bridge_name="wherry0",
    )

    endpoint = TestBridge.endpoint

    def prepare(self) -> None:
        shell("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
        shell("ip", "addr", "add", "192.0.2.1/24", "dev", "up0")
        shell("ip", "link", "set", "up0", "up")

    @on_a_host
    def test_the_device_knows_what_it_is_told(self) -> None:
        self.prepare()
        self.driver.start(self.network)
        remotes = [
            Remote(host="h", address="192.0.2.2", endpoint=self.endpoint(number)) for number in (1, 2, 3)
        ]
        for told in (remotes, remotes[1:], [], remotes):
            self.driver.reach(self.network, told)
            device = f"vx-{self.network.id[:12]}"
            shown = shell("bridge", "fdb", "show", "dev", device)
            names = shell("ip", "neigh", "show", "dev", device)
            for remote in remotes:
                assert (f"{remote.endpoint.mac} dst 192.0.2.2" in shown) == (remote in told)
                assert (f"{remote.endpoint.ip} lladdr" in names) == (remote in told)


def test_host_has_nothing_to_attach_to() -> None:
    network = Network(id="c" * 64, name="host", driver="host", created=1)
    endpoint = Endpoint(id="e", network_id=network.id, network_name="host", container_id="c")
    with pytest.raises(Internal, match="no namespace of its own"):
        HostDriver().attach(network, endpoint, None)  # type: ignore[arg-type]
