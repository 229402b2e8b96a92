"""Networks through the API, the docker CLI and wherry's own client."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from typing import Any

import pytest
from daemonlab import LabDaemon, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def inspect(daemon: LabDaemon, network: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(daemon.docker("network", "inspect", network).ok())[0]
    return found


def run(daemon: LabDaemon, name: str, *arguments: str) -> None:
    daemon.docker("run", "-d", "--name", name, *arguments, "busybox", "sleep", "1000").ok()


def test_containers_find_each_other(daemon: LabDaemon, name: str) -> None:
    net, db, web = f"{name}-net", f"{name}-db", f"{name}-web"
    daemon.docker("network", "create", "--label", "a=b", net).ok()
    run(daemon, db, "--network", f"name={net},alias=store,alias=db")
    run(daemon, web, "--network", net, "--hostname", "front")
    for called in (db, "store", f"db.{net}"):
        assert "1 packets received" in daemon.docker("exec", web, "ping", "-c1", called).ok()
    assert daemon.docker("exec", web, "nslookup", "host.docker.internal").code == 0
    shown = json.loads(daemon.docker("inspect", web).ok())[0]["NetworkSettings"]["Networks"][net]
    assert shown["DNSNames"][0] == web and "front" in shown["DNSNames"]
    containers = inspect(daemon, net)["Containers"]
    assert {c["Name"] for c in containers.values()} == {db, web}
    daemon.docker("rename", db, f"{name}-data").ok()
    assert "1 packets received" in daemon.docker("exec", web, "ping", "-c1", f"{name}-data").ok()
    assert "has active endpoints" in daemon.docker("network", "rm", net).errors


def test_connect_and_disconnect(daemon: LabDaemon, name: str) -> None:
    one, two, box = f"{name}-1", f"{name}-2", f"{name}-box"
    daemon.docker("network", "create", one).ok()
    daemon.wherry("network", "create", "--subnet", "10.213.7.0/24", "--gateway", "10.213.7.254", two).ok()
    run(daemon, box)
    assert "127.0.0.11" not in daemon.docker("exec", box, "cat", "/etc/resolv.conf").ok()
    daemon.wherry("network", "connect", "--ip", "10.213.7.9", "--alias", "x", two, box).ok()
    assert "10.213.7.9/24" in daemon.docker("exec", box, "ip", "addr").ok()
    assert "nameserver 127.0.0.11" in daemon.docker("exec", box, "cat", "/etc/resolv.conf").ok()
    assert "10.213.7.9" in daemon.docker("exec", box, "cat", "/etc/hosts").ok()
    daemon.docker("network", "disconnect", "bridge", box).ok()
    assert "via 10.213.7.254" in daemon.docker("exec", box, "ip", "route").ok()
    again = daemon.docker("network", "connect", two, box)
    assert f"endpoint with name {box} already exists in network {two}" in again.errors
    daemon.docker("stop", "-t", "0", box).ok()
    daemon.docker("network", "connect", one, box).ok()
    daemon.docker("network", "disconnect", two, box).ok()
    daemon.docker("start", box).ok()
    networks = json.loads(daemon.docker("inspect", box).ok())[0]["NetworkSettings"]["Networks"]
    assert list(networks) == [one] and networks[one]["IPAddress"]
    refused = daemon.docker("network", "disconnect", two, box)
    assert f"is not connected to network {two}" in refused.errors
    actions = daemon.actions(type=["network"], network=[one])
    assert actions[:1] == ["create"] and "connect" in actions


def test_several_networks_from_the_start(daemon: LabDaemon, name: str) -> None:
    for net in ("a", "b"):
        daemon.docker("network", "create", f"{name}-{net}").ok()
    second = f"--network=name={name}-b,gw-priority=5,mac-address=02:00:00:00:12:34"
    networks = [f"--network=name={name}-a", second]
    out = daemon.docker("run", "--rm", *networks, "busybox", "sh", "-c", "ip -o link; ip route").ok()
    assert "02:00:00:00:12:34" in out.partition("eth1")[2]
    gateway = inspect(daemon, f"{name}-b")["IPAM"]["Config"][0]["Gateway"]
    assert f"default via {gateway} dev eth1" in out


def test_links_are_names_of_ones_own(daemon: LabDaemon, name: str) -> None:
    daemon.docker("network", "create", name).ok()
    run(daemon, f"{name}-db", "--network", name)
    run(daemon, f"{name}-web", "--network", name, "--link", f"{name}-db:pg")
    run(daemon, f"{name}-other", "--network", name)
    assert "1 packets received" in daemon.docker("exec", f"{name}-web", "ping", "-c1", "pg").ok()
    assert daemon.docker("exec", f"{name}-other", "nslookup", "pg").code != 0
    discarded = daemon.docker("create", "--network", "none", "-p", "80", "busybox")
    assert "Published ports are discarded" in discarded.errors


def test_what_cannot_be(daemon: LabDaemon, name: str) -> None:
    daemon.docker("network", "create", "--subnet", "10.213.8.0/24", name).ok()
    before = daemon.traces()
    for arguments, words in (
        ((name,), f"network with name {name} already exists"),
        (("bridge",), "operation is not permitted on predefined bridge network"),
        (("a b",), "invalid network name"),
        (("--subnet", "10.213.8.128/25", "x"), "Pool overlaps with other one on this address space"),
        (("-o", "foo=bar", "x"), "invalid option 'foo'"),
        (("-d", "nope", "x"), 'plugin "nope" not found'),
        (("-o", "com.docker.network.driver.mtu=1", "x"), "68 to 65535"),
        (("--config-from", "nope", "x"), "configuration network 'nope' not found"),
    ):
        for refused in (
            daemon.docker("network", "create", *arguments),
            daemon.wherry("network", "create", *arguments),
        ):
            assert refused.code == 1 and words in refused.errors
    for body, status in (
        ({}, 400),
        ({"Name": "x", "IPAM": {"Config": [{"Gateway": "10.0.0.1"}]}}, 400),
        ({"Name": "x", "IPAM": {"Config": [{"Subnet": "10.0.0.0/33"}]}}, 400),
        ({"Name": "x", "Ingress": True}, 501),
        ({"Name": "x", "Options": {"a": 1}}, 400),
    ):
        assert daemon.api("POST", "/networks/create", body).status == status
    for method, path, status in (
        ("DELETE", "/networks/none-such", 404),
        ("DELETE", "/networks/host", 403),
        ("GET", "/networks/none-such", 404),
    ):
        assert daemon.api(method, path).status == status
    assert daemon.api("POST", f"/networks/{name}/connect", {"Container": "none-such"}).status == 404
    taken = daemon.docker("run", "--rm", "--network", f"name={name},ip=10.213.8.1", "busybox", "true")
    assert "failed to set up container networking: Address already in use" in taken.errors
    daemon.remove_containers()
    wait_until(lambda: daemon.traces() == before, "nothing to be left")


def test_config_only(daemon: LabDaemon, name: str) -> None:
    settings = f"{name}-settings"
    daemon.docker("network", "create", "--config-only", "--subnet", "10.213.9.0/24", settings).ok()
    daemon.docker("network", "create", "--config-from", settings, name).ok()
    shown = inspect(daemon, name)
    assert shown["IPAM"]["Config"][0]["Subnet"] == "10.213.9.0/24"
    assert shown["ConfigFrom"]["Network"] == settings
    assert daemon.docker("network", "rm", settings).code == 1
    assert daemon.docker("run", "--rm", "--network", settings, "busybox", "true").code == 125
    daemon.docker("network", "rm", name, settings).ok()


def test_prune_and_filters(daemon: LabDaemon, name: str) -> None:
    for suffix in ("a", "b", "c"):
        daemon.docker("network", "create", "--label", f"{name}={suffix}", f"{name}-{suffix}").ok()
    run(daemon, name, "--network", f"{name}-a")
    daemon.docker("stop", "-t", "0", name).ok()
    listed = ("network", "ls", "--format", "{{.Name}}", "--filter", f"label={name}")
    assert len(daemon.docker(*listed).ok().split()) == 3
    assert daemon.docker(*listed, "--filter", "dangling=true").ok().count(name) == 3
    pruned = daemon.wherry("network", "prune", "-f", "--filter", f"label={name}=b").ok()
    assert pruned == f"Deleted Networks:\n{name}-b"
    assert f"{name}-c" in daemon.docker("system", "prune", "-f", "--filter", f"label={name}=c").ok()
    assert daemon.docker(*listed).ok() == f"{name}-a", "a stopped container's network stays"
    assert daemon.wherry("network", "ls", "-q", "--filter", f"name={name}-a").ok()
    assert json.loads(daemon.wherry("network", "inspect", f"{name}-a").ok())[0]["Name"] == f"{name}-a"
    daemon.wherry("network", "rm", "-f", f"{name}-a", "none-such").ok()


def test_lists_of_callers(daemon: LabDaemon, name: str) -> None:
    spec = "from=127.0.0.0/8+192.0.2.0/24,0:80"
    created = daemon.wherry("run", "-d", "--name", name, "-p", spec, "busybox", "sleep", "1000")
    created.ok()
    bindings = json.loads(daemon.docker("inspect", name).ok())[0]["HostConfig"]["PortBindings"]
    assert bindings["80/tcp"][0]["Sources"] == ["127.0.0.0/8", "192.0.2.0/24"]
    assert any("admitted4" in e for e in daemon.traces())
    daemon.wherry("update", "--publish-add", "from=10.0.0.0/8,18099:81", name).ok()
    assert "18099" in daemon.docker("port", name).ok()
    daemon.wherry("update", "--publish-rm", "18099", name).ok()
    bad = daemon.wherry("run", "-d", "-p", "from=10.0.0.1/8,80", "busybox", "true")
    assert bad.code == 125 and "invalid subnet" in bad.errors


@pytest.mark.patient(60)
def test_a_killed_daemon_comes_back_to_its_networks(fresh_daemon: LabDaemon) -> None:
    daemon = fresh_daemon
    daemon.docker("network", "create", "mine").ok()
    run(daemon, "web", "--network", "mine", "--network-alias", "www", "-p", "0:80")
    run(daemon, "gone", "--network", "mine")
    address = inspect(daemon, "mine")["Containers"]
    daemon.end(signal.SIGKILL)
    daemon.start()
    assert inspect(daemon, "mine")["Containers"] == address
    assert "1 packets received" in daemon.docker("exec", "gone", "ping", "-c1", "www").ok()
    daemon.docker("rm", "-f", "gone").ok()
    run(daemon, "next", "--network", "mine")
    used = {c["IPv4Address"] for c in inspect(daemon, "mine")["Containers"].values()}
    assert not used & {c["IPv4Address"] for c in address.values() if c["Name"] == "gone"}
    assert "1 packets received" in daemon.docker("exec", "web", "ping", "-c1", "next").ok()


def test_a_range_of_a_thousand_ports_within_1024_descriptors(fresh_daemon: LabDaemon, name: str) -> None:
    assert fresh_daemon.process is not None
    pid = fresh_daemon.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (1024, hard))
    before = len(os.listdir(f"/proc/{pid}/fd"))
    run(fresh_daemon, name, "-p", "20000-21000:20000-21000")
    assert len(os.listdir(f"/proc/{pid}/fd")) < before + 20
    assert "20000-21000->20000-21000/tcp" in fresh_daemon.docker("ps").ok()
    fresh_daemon.docker("exec", "-d", name, "nc", "-l", "-p", "20777", "-e", "echo", "here").ok()
    wait_until(lambda: asked(20777) == b"here\n", "the container to answer")
    taken = fresh_daemon.docker("run", "--rm", "-p", "20777:80", "busybox", "true")
    assert "Bind for 0.0.0.0:20777 failed: port is already allocated" in taken.errors
    fresh_daemon.docker("rm", "-f", name).ok()


def asked(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            return sock.recv(100)
    except OSError:
        return b""


def test_an_ip_range(daemon: LabDaemon, name: str) -> None:
    where = ("--subnet", "10.213.9.0/24", "--ip-range", "10.213.9.128/28")
    daemon.docker("network", "create", *where, "--aux-address", "me=10.213.9.128", name).ok()
    assert inspect(daemon, name)["IPAM"]["Config"] == [
        {
            "Subnet": "10.213.9.0/24",
            "IPRange": "10.213.9.128/28",
            "Gateway": "10.213.9.1",
            "AuxiliaryAddresses": {"me": "10.213.9.128"},
        }
    ]
    address = daemon.docker("run", "--rm", "--network", name, "busybox", "hostname", "-i").ok().strip()
    assert address == "10.213.9.129"
    for ranged in ("10.213.8.0/28", "10.213.9.130/28"):
        body = {"Name": f"{name}-x", "IPAM": {"Config": [{"Subnet": "10.213.10.0/24", "IPRange": ranged}]}}
        answer = daemon.api("POST", "/networks/create", body)
        assert answer.status == 400 and "ip-range" in answer.json["message"], answer.body


def test_a_list_with_a_slash(daemon: LabDaemon) -> None:
    for path in ("/networks/", "/v1.44/networks/"):
        assert {n["Name"] for n in daemon.api("GET", path).json} >= {"bridge", "host", "none"}


def test_the_prompt_of_prune_is_dockers(daemon: LabDaemon) -> None:
    asked = [ask("network", "prune", input=b"n\n") for ask in (daemon.docker, daemon.wherry)]
    prompt = "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure"
    assert all(done.raw.decode().startswith(prompt) for done in asked), [done.raw for done in asked]


def test_parameters_of_an_interface(daemon: LabDaemon, name: str) -> None:
    daemon.docker("network", "create", name).ok()
    option = "driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1"
    shown = ("busybox", "cat", "/proc/sys/net/ipv4/conf/eth0/log_martians")
    for ask in (daemon.docker, daemon.wherry):
        assert ask("run", "--rm", "--network", f"name={name},{option}", *shown).ok().strip() == "1"


def test_host_and_none_list_their_containers(daemon: LabDaemon, name: str) -> None:
    """As others do, with an endpoint that has an id and no address."""
    for network in ("host", "none"):
        flags = ("-d", "--init", "--network", network)
        container = daemon.docker("run", *flags, "busybox", "sleep", "1000").ok()
        shown = daemon.api("GET", f"/containers/{container}/json").json
        endpoint = shown["NetworkSettings"]["Networks"][network]["EndpointID"]
        listed = daemon.api("GET", f"/networks/{network}").json["Containers"]
        assert listed[container] == {
            "Name": shown["Name"].removeprefix("/"), "EndpointID": endpoint, "MacAddress": "",
            "IPv4Address": "", "IPv6Address": "",
        }  # fmt: skip
        assert len(endpoint) == 64
        daemon.docker("kill", container).ok()
        daemon.docker("wait", container).ok()
        assert container not in daemon.api("GET", f"/networks/{network}").json["Containers"]


def test_options_that_an_ipam_driver_does_not_have_are_refused(daemon: LabDaemon, name: str) -> None:
    refused = daemon.docker("network", "create", "--ipam-opt", "colour=blue", name)
    assert refused.code and "invalid IPAM option 'colour'" in refused.errors
    assert name not in daemon.networks()
