"""Overlay networks between hosts that speak IPv6 to each other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from hostlab import Cluster, no_esp
from wirelab import ESP, UDP, Wire, made, sealed, two_boxes

from wherry.network.drivers import overlay as driver

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("etcd") is None, reason="needs etcd-server"),
    pytest.mark.xdist_group("hosts"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2, ipv6=True) as made:
        yield made


def test_containers_meet(cluster: Cluster) -> None:
    made(cluster.hosts, "open", "10.51.0.0/24")
    one, two = two_boxes(cluster.hosts, "open")
    assert one.mtu == 1430
    with Wire(cluster) as wire:
        assert one.reaches(two, "-s", "1402") and one.reaches(two, "-s", "20000")
    assert wire.of(UDP, driver.PORT) and max(map(len, wire.of(UDP, driver.PORT))) == 1500


@pytest.mark.skipif(bool(no_esp()), reason="the kernel has no IPsec ESP")
def test_encrypted(cluster: Cluster) -> None:
    sealed(cluster.hosts)
    one, two = two_boxes(cluster.hosts)
    assert one.mtu == 1396
    with Wire(cluster) as wire:
        assert one.reaches(two, "-s", "1368") and one.reaches(two, "-s", "20000")
    assert wire.of(ESP) and not wire.tunnels
    assert 1496 < max(map(len, wire.of(ESP))) <= 1500
