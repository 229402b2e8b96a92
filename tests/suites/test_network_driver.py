"""The network driver suite on every driver that has namespaces to furnish."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

from network_driver import NetworkDriverSuite, links
from network_lab import on_a_host, shell

from wherry.errors import Internal
from wherry.network.drivers.bridge import BridgeDriver
from wherry.network.drivers.host import HostDriver
from wherry.network.drivers.none import NoneDriver
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
    def test_bridge_of_another_address_is_made_anew(self) -> None:
        self.driver.start(self.network)
        shell("ip", "addr", "flush", "dev", "wherry0")
        shell("ip", "addr", "add", "10.6.0.1/24", "dev", "wherry0")
        self.driver.start(self.network)
        assert "10.5.0.1/24" in shell("ip", "-br", "addr", "show", "wherry0")
        assert "10.6" not in shell("ip", "-br", "addr", "show", "wherry0")


def test_host_has_nothing_to_attach_to() -> None:
    network = Network(id="c" * 64, name="host", driver="host", created=1)
    endpoint = Endpoint(id="e", network_id=network.id, network_name="host", container_id="c")
    with pytest.raises(Internal, match="no namespace of its own"):
        HostDriver().attach(network, endpoint, None)  # type: ignore[arg-type]
