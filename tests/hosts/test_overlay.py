"""Overlay networks over three hosts and a real etcd: what works, and what happens when one of them goes."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator

import pytest
from hostlab import TTL, Cluster, Host, ip, no_esp, nothing_left, overlay, wait_until

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("etcd") is None, reason="needs etcd-server"),
    pytest.mark.xdist_group("hosts"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as made:
        yield made


@pytest.fixture
def hosts(cluster: Cluster) -> Iterator[list[Host]]:
    """Three hosts; afterwards nothing of the test is left, on them or in etcd."""
    with nothing_left(cluster):
        yield cluster.hosts


def test_containers_of_several_hosts_meet(hosts: list[Host]) -> None:
    one, two, three = hosts
    overlay(hosts, "wide", "--subnet", "10.50.0.0/24")
    one.box("web", "wide", "--network-alias", "www")
    two.box("db", "wide")
    three.box("out", "wide")
    addresses = {h.address_of(n, "wide") for h, n in ((one, "web"), (two, "db"), (three, "out"))}
    assert len(addresses) == 3
    wait_until(lambda: two.reaches("db", "www"), "the name")
    wait_until(lambda: three.reaches("out", "db"), "the name")
    assert one.reaches("web", "db", "-s", "20000"), "packets that need several frames"
    assert "mtu 1450" in one.docker("exec", "web", "ip", "link", "show", "eth0").ok()
    two.docker("exec", "-d", "db", "sh", "-c", "echo hello | nc -l -p 9999").ok()
    wait_until(lambda: "hello" in one.docker("exec", "web", "nc", "-w", "2", "db", "9999").out, "TCP")
    shown = json.loads(one.docker("network", "inspect", "wide").ok())[0]
    assert shown["Scope"] == "global" and {p["IP"] for p in shown["Peers"]} == {two.address, three.address}
    assert sorted(c["Name"] for c in shown["Containers"].values()) == ["db", "out", "web"]
    backwards = two.docker("exec", "db", "nslookup", one.address_of("web", "wide")).ok()
    assert "name = web.wide" in backwards
    assert "active endpoints on another host" in one_without(one, "web", "wide")


def one_without(host: Host, container: str, network: str) -> str:
    host.docker("rm", "-f", container).ok()
    return host.docker("network", "rm", network).errors


def test_addresses_are_chosen_with_all_hosts(hosts: list[Host]) -> None:
    one, two, _ = hosts
    overlay(hosts, "narrow", "--subnet", "10.51.0.0/29")
    for number in range(5):
        hosts[number % 2].box(f"b{number}", "narrow")
    full = two.docker("run", "--rm", "--network", "narrow", "busybox", "true")
    assert full.code == 125 and "no available" in full.errors
    wanted = one.address_of("b0", "narrow")
    taken = two.docker("run", "--rm", "--network", f"name=narrow,ip={wanted}", "busybox", "true")
    assert taken.code == 125 and "Address already in use" in taken.errors
    again = two.docker("network", "create", "-d", "overlay", "narrow")
    assert "network with name narrow already exists" in again.errors
    overlapping = two.docker("network", "create", "-d", "overlay", "--subnet", "10.51.0.0/24", "x")
    assert "Pool overlaps" in overlapping.errors


@pytest.mark.skipif(not no_esp(), reason="the kernel has IPsec ESP")
def test_a_kernel_without_esp_makes_no_encrypted_network(hosts: list[Host]) -> None:
    refused = hosts[0].docker("network", "create", "-d", "overlay", "-o", "encrypted", "x")
    assert "cannot make network x: this kernel has no IPsec ESP with AES-GCM" in refused.errors
    assert "x" not in hosts[0].networks()


def test_a_container_moves(hosts: list[Host]) -> None:
    one, two, three = hosts
    overlay(hosts, "wide", "--subnet", "10.52.0.0/24")
    three.box("client", "wide")
    for host in (one, two, one):
        host.box("server", "name=wide,ip=10.52.0.99")
        wait_until(lambda: three.reaches("client", "server"), f"the container on {host.name}")
        assert three.reaches("client", "10.52.0.99")
        host.docker("rm", "-f", "server").ok()
        wait_until(lambda: three.docker("exec", "client", "nslookup", "server").code != 0, "the name to go")


def test_containers_reach_the_world_and_are_published(hosts: list[Host]) -> None:
    one, two, _ = hosts
    overlay(hosts, "wide")
    one.box("web", "wide", "-p", "8080:80")
    one.docker("exec", "-d", "web", "sh", "-c", "while :; do echo hello | nc -l -p 80; done").ok()
    two.docker("run", "-d", "--name", "client", "--network", "host", "busybox", "sleep", "1000").ok()
    ask = ("exec", "client", "nc", "-w", "2", one.address, "8080")
    wait_until(lambda: "hello" in two.docker(*ask).out, "the published port")
    assert one.reaches("web", two.address), "out by the host's address"


@pytest.mark.patient(60)
def test_a_killed_daemon_is_forgotten_and_comes_back(hosts: list[Host]) -> None:
    one, two, three = hosts
    overlay(hosts, "wide")
    one.box("aa", "wide")
    two.box("bb", "wide")
    wait_until(lambda: one.reaches("aa", "bb"), "the name")
    address = two.address_of("bb", "wide")
    two.end(signal.SIGKILL)
    assert one.reaches("aa", address), "its containers run on and are reached"
    wait_until(lambda: one.docker("exec", "aa", "nslookup", "bb").code != 0, "the lease to end")
    two.start()
    wait_until(lambda: one.reaches("aa", "bb"), "the container to be back")
    assert two.address_of("bb", "wide") == address
    assert two.reaches("bb", "aa")
    three.box("cc", "wide")
    wait_until(lambda: two.reaches("bb", "cc"), "news after the restart")


def starts(host: Host, name: str) -> bool:
    """Whether a container could be started; one that could not is removed."""
    done = host.docker("run", "-d", "--name", name, "--network", "wide", "busybox", "sleep", "1000")
    if done.code:
        host.docker("rm", "-f", name)
    return done.code == 0


@pytest.mark.patient(60)
def test_etcd_away_disturbs_nothing_that_runs(cluster: Cluster, hosts: list[Host]) -> None:
    one, two, _ = hosts
    overlay(hosts, "wide")
    one.box("aa", "wide")
    two.box("bb", "wide")
    wait_until(lambda: one.reaches("aa", "bb"), "the name")
    cluster.etcd.end(signal.SIGKILL)
    # Longer than any lease lasts: what each host knows of the others stays, and so does the way.
    lasting = ("exec", "aa", "ping", "-q", "-c", str(4 * TTL), "-i", "0.5", "bb")
    assert " 0% packet loss" in one.docker(*lasting, timeout=10 * TTL).ok()
    assert two.reaches("bb", "aa")
    refused = one.docker("run", "--rm", "--network", "wide", "busybox", "true")
    assert refused.code == 125 and "cannot reach the cluster store etcd://" in refused.errors
    assert "cannot reach the cluster store" in one.docker("network", "create", "-d", "overlay", "x").errors
    two.docker("rm", "-f", "bb").ok()
    two.docker("run", "-d", "--name", "local", "busybox", "sleep", "1000").ok()
    assert two.docker("exec", "local", "true").code == 0
    cluster.etcd.start()
    wait_until(lambda: one.docker("exec", "aa", "nslookup", "bb").code != 0, "what went meanwhile to be told")
    wait_until(lambda: starts(two, "cc"), "etcd")
    wait_until(lambda: one.reaches("aa", "cc"), "news after etcd is back")


@pytest.mark.patient(60)
def test_a_cut_wire_heals(cluster: Cluster, hosts: list[Host]) -> None:
    one, two, three = hosts
    overlay(hosts, "wide")
    one.box("aa", "wide")
    two.box("bb", "wide")
    wait_until(lambda: one.reaches("aa", "bb"), "the name")
    with cluster.switch.cut(two.name):
        wait_until(lambda: one.docker("exec", "aa", "nslookup", "bb").code != 0, "the lease to end")
        three.box("cc", "wide")
        one.docker("rm", "-f", "aa").ok()
    wait_until(lambda: three.reaches("cc", "bb"), "the other side to be told", timeout=40)
    wait_until(lambda: two.reaches("bb", "cc"), "this side to be told", timeout=40)
    assert two.docker("exec", "bb", "nslookup", "aa").code != 0


@pytest.mark.slow
@pytest.mark.patient(300)
def test_fifty_containers_a_host(hosts: list[Host]) -> None:
    overlay(hosts, "wide", "--subnet", "10.60.0.0/22")
    for host in hosts:
        for number in range(50):
            host.box(f"{host.name}-{number}", "wide")
    one, _, three = hosts
    for number in (0, 25, 49):
        wait_until(lambda n=number: one.reaches("h1-0", f"h3-{n}"), "a name")  # type: ignore[misc]
        assert three.reaches("h3-0", f"h2-{number}")
    device = next(name for name in one.links() if name.startswith("vx-")).rstrip(":")
    entries = ip(one.where, "neigh", "show", "dev", device).count("PERMANENT")
    assert entries == 100
