"""What every network driver must do, on a host in miniature (see ``on_a_host``)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from network_lab import on_a_host

from wherry.linux import netns
from wherry.linux import rtnetlink as rt
from wherry.linux.netlink import NetlinkSocket
from wherry.network.drivers import Namespace, NetworkDriver
from wherry.network.types import Endpoint, Network


def links() -> list[str]:
    with NetlinkSocket() as sock:
        return sorted(link.name for link in rt.links(sock))


class NetworkDriverSuite:
    """``network`` is one of the driver's; ``endpoint(n)`` its n-th endpoint, of a container of its own."""

    driver: ClassVar[NetworkDriver]
    network: ClassVar[Network]

    def endpoint(self, number: int) -> Endpoint:
        raise NotImplementedError

    def prepare(self) -> None:
        """What the driver expects of a host; runs on each that a test begins with."""

    def attach(self, directory: Path, number: int) -> Endpoint:
        endpoint = self.endpoint(number)
        path = directory / str(number)
        with netns.create(path, NetlinkSocket) as inside:
            fd = os.open(path, os.O_RDONLY)
            try:
                self.driver.attach(self.network, endpoint, Namespace(fd, inside))
            finally:
                os.close(fd)
            found = {link.name: link for link in rt.links(inside)}
            if endpoint.ifname:
                assert found[endpoint.ifname].mac == endpoint.mac
        return endpoint

    @on_a_host
    def test_start_and_stop_may_be_repeated(self) -> None:
        self.prepare()
        before = links()
        for _ in range(2):
            self.driver.start(self.network)
        during = links()
        self.driver.start(self.network)
        assert links() == during
        for _ in range(2):
            self.driver.stop(self.network)
        assert links() == before

    @on_a_host
    def test_detach_leaves_nothing(self, tmp_path: Path) -> None:
        self.prepare()
        self.driver.start(self.network)
        before = links()
        endpoint = self.attach(tmp_path, 1)
        for _ in range(2):
            self.driver.detach(self.network, endpoint)
        assert links() == before

    @on_a_host
    def test_endpoints_are_apart(self, tmp_path: Path) -> None:
        self.prepare()
        self.driver.start(self.network)
        first = self.attach(tmp_path, 1)
        before = links()
        second = self.attach(tmp_path, 2)
        self.driver.detach(self.network, second)
        assert links() == before
        assert self.driver.adopt(self.network, first)

    @on_a_host
    def test_start_keeps_endpoints(self, tmp_path: Path) -> None:
        self.prepare()
        self.driver.start(self.network)
        endpoint = self.attach(tmp_path, 1)
        before = links()
        self.driver.start(self.network)
        assert links() == before
        assert self.driver.adopt(self.network, endpoint)

    @on_a_host
    def test_lost_endpoint_is_not_adopted(self, tmp_path: Path) -> None:
        self.prepare()
        self.driver.start(self.network)
        endpoint = self.attach(tmp_path, 1)
        self.driver.detach(self.network, endpoint)
        assert self.driver.adopt(self.network, endpoint) == (not endpoint.host_ifname)
