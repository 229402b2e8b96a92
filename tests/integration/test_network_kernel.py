"""The network room on the real kernel, seen from everywhere a published port can be reached from."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from network_lab import QUIET, ask, child, footprint, manager, on_a_host, other_host, serve, shell, until
from patience import patiently

from wherry.errors import Conflict, Internal, InvalidArgument, NotFound
from wherry.linux import conntrack, netns, syscalls
from wherry.network import sandbox as sandboxes
from wherry.network.create import NetworkRequest
from wherry.network.dns.server import DnsServer
from wherry.network.drivers.bridge import BridgeDriver
from wherry.network.firewall import Firewall
from wherry.network.room import NetworkRoom
from wherry.network.sandboxes import SandboxManager
from wherry.network.types import NetworkConfig, PortMapping, Sandbox, Subnet
from wherry.state.networks import Networks

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


def new_id() -> str:
    return secrets.token_hex(32)


def container(m: NetworkRoom, *ports: PortMapping, mode: str = "default") -> Sandbox:
    return m.sandboxes.create(new_id(), name="test", network_mode=mode, ports=ports)


def ip_of(sandbox: Sandbox) -> str:
    return sandbox.endpoints[0].ip


@on_a_host
def test_container_reaches_other_hosts_by_the_hosts_address(tmp_path: Path) -> None:
    m = manager(tmp_path)
    m.start()
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    serve(lan, 80, "lan")
    box = container(m)
    assert ask(box.path, "198.51.100.2", 80) == "lan 198.51.100.1"


@on_a_host
def test_builds_have_a_network_of_their_own(tmp_path: Path) -> None:
    m = manager(tmp_path, config=NetworkConfig(bip="10.77.0.1/30"))
    m.start()
    before = [n.name for n in m.networks.list()]
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    serve(lan, 80, "lan")
    box = container(m, PortMapping(container_port=80, host_port=8080))
    serve(box.path, 80, "box")
    with pytest.raises(Conflict, match="no available IPv4 addresses"):
        container(m)
    m.networks.create(NetworkRequest(name="mine"))
    other = container(m, mode="mine")
    serve(other.path, 80, "other")
    builds = [container(m, mode=m.builds.enter()) for _ in range(2)]
    serve(builds[1].path, 80, "build")
    assert ask(builds[0].path, "198.51.100.2", 80) == "lan 198.51.100.1"
    assert ask(builds[0].path, ip_of(box), 80) == "box 10.77.0.1", "as among those of the default bridge"
    assert ask(builds[0].path, "10.77.0.1", 8080).startswith("box ")
    for who, whom in ((box, builds[1]), (builds[0], other), (builds[0], builds[1])):
        assert ask(who.path, ip_of(whom), 80, timeout=QUIET) in ("silence", "No route to host")
    assert [n.name for n in m.networks.list()] == [*before, "mine"]
    network_id = builds[0].endpoints[0].network_id
    for wanted in ("(builds)", network_id, network_id[:12]):
        with pytest.raises(NotFound):
            m.networks.get(wanted)
    with pytest.raises(NotFound):
        m.sandboxes.create(new_id(), endpoints={"(builds)": None})
    with pytest.raises(InvalidArgument, match="invalid network name"):
        m.networks.create(NetworkRequest(name="(builds)"))
    assert builds[0].endpoints[0].prefix_len == 22
    assert "wherry-builds" in shell("ip", "link")
    stop(m)
    again = manager(tmp_path, config=NetworkConfig(bip="10.77.0.1/30"))
    again.start()
    again.restore({box.container_id: 0, other.container_id: 0})
    assert "wherry-builds" not in shell("ip", "link"), "builds do not outlive the daemon"
    build = container(again, mode=again.builds.enter())
    assert ask(build.path, "198.51.100.2", 80) == "lan 198.51.100.1"
    again.builds.enter()
    again.builds.leave()
    again.settle()
    assert "wherry-builds" in shell("ip", "link"), "one more goes on"
    again.sandboxes.delete(build.container_id)
    again.builds.leave()
    again.settle()
    assert "wherry-builds" not in shell("ip", "link") + shell(
        "nft", "list", "set", "inet", "wherry", "bridges"
    )


@on_a_host
def test_builds_are_kept_from_a_default_bridge_without_icc(tmp_path: Path) -> None:
    m = manager(tmp_path, config=NetworkConfig(icc=False))
    m.start()
    box = container(m)
    serve(box.path, 80, "box")
    build = container(m, mode=m.builds.enter())
    assert ask(build.path, ip_of(box), 80, timeout=QUIET) == "silence"


@on_a_host
def test_without_masquerade_other_hosts_see_the_container(tmp_path: Path) -> None:
    m = manager(tmp_path, config=NetworkConfig(ip_masq=False))
    m.start()
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    serve(lan, 80, "lan")
    box = container(m)
    assert ask(box.path, "198.51.100.2", 80) == f"lan {ip_of(box)}"


def bridge_netfilter(on: bool) -> None:
    """Whether bridged frames pass the host's IP firewall too, which other engines turn on for all bridges."""
    switch = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if switch.exists():
        switch.write_text(str(int(on)))
    elif on:
        pytest.skip("br_netfilter is not loaded")


@pytest.mark.parametrize("bridge_nf", [False, True])
@pytest.mark.parametrize("udp", [False, True])
@on_a_host
def test_published_port_is_reached_from_everywhere(tmp_path: Path, udp: bool, bridge_nf: bool) -> None:
    bridge_netfilter(bridge_nf)
    m = manager(tmp_path)
    m.start()
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    web = container(m, PortMapping(container_port=80, proto="udp" if udp else "tcp", host_port=8080))
    neighbour = container(m)
    serve(web.path, 80, "web", udp=udp)
    gateway = web.endpoints[0].gateway

    def asked(where: Path | None, ip: str, port: int = 8080) -> str:
        return ask(where, ip, port, udp=udp)

    assert asked(lan, "198.51.100.1") == "web 198.51.100.2", "another host, its address kept"
    assert asked(None, "127.0.0.1") == f"web {gateway}"
    assert asked(None, "127.7.7.7") == f"web {gateway}"
    assert asked(None, "198.51.100.1").startswith("web ")
    assert asked(None, gateway).startswith("web ")
    assert asked(neighbour.path, "198.51.100.1").startswith("web ")
    assert asked(neighbour.path, gateway).startswith("web ")
    assert asked(web.path, "198.51.100.1").startswith("web "), "itself, by its own published port"
    assert asked(neighbour.path, ip_of(web), 80) == f"web {ip_of(neighbour)}", "directly"
    assert asked(None, ip_of(web), 80) == f"web {gateway}"


@on_a_host
def test_port_on_loopback_stays_on_the_host(tmp_path: Path) -> None:
    m = manager(tmp_path)
    m.start()
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    web = container(m, PortMapping(container_port=80, host_ip="127.0.0.1", host_port=8080))
    serve(web.path, 80, "web")
    assert ask(None, "127.0.0.1", 8080) == f"web {web.endpoints[0].gateway}"
    assert ask(lan, "198.51.100.1", 8080, timeout=QUIET) == "refused"
    # a host on the wire that sends to 127.0.0.1 by this host's hardware address
    for line in (
        "addr del 127.0.0.1/8 dev lo",
        "route add 127.0.0.1 via 198.51.100.1 src 198.51.100.2",
    ):
        shell("ip", *line.split(), where=lan)
    for device in ("eth0", "all"):
        netns.inside(
            lan, lambda d=device: Path(f"/proc/sys/net/ipv4/conf/{d}/route_localnet").write_text("1")
        )
    assert ask(lan, "127.0.0.1", 8080, timeout=QUIET) == "silence"
    # the guard is what keeps it out: without it the same packet arrives
    m.parts.publishing.unwatch()
    shell("nft", "flush", "chain", "inet", "wherry", "prerouting")
    shell("nft", "add", "rule", "inet", "wherry", "prerouting", "goto", "publish4")
    assert ask(lan, "127.0.0.1", 8080) == "web 198.51.100.2"


@on_a_host
def test_container_does_not_reach_the_hosts_loopback(tmp_path: Path) -> None:
    m = manager(tmp_path)
    m.start()
    box = container(m)
    serve(None, 5000, "secret", ip="127.0.0.1")
    gateway = box.endpoints[0].gateway
    shell("ip", "addr", "del", "127.0.0.1/8", "dev", "lo", where=box.path)
    shell("ip", "route", "add", "127.0.0.1", "via", gateway, "src", ip_of(box), where=box.path)
    for device in ("eth0", "all"):
        netns.inside(
            box.path, lambda d=device: Path(f"/proc/sys/net/ipv4/conf/{d}/route_localnet").write_text("1")
        )
    assert ask(box.path, "127.0.0.1", 5000, timeout=QUIET) == "silence"
    m.parts.publishing.unwatch()
    shell("nft", "flush", "chain", "inet", "wherry", "guard")
    assert ask(box.path, "127.0.0.1", 5000) == f"secret {ip_of(box)}"


@on_a_host
def test_container_cannot_pretend_to_be_the_hosts_loopback(tmp_path: Path) -> None:
    """The bridge lets 127.0.0.0/8 pass for the sake of published ports, so that the kernel takes it from
    there on a host that takes its own addresses from a wire (ip-sysctl.rst, ``accept_local``)."""
    m = manager(tmp_path)
    m.start()
    box = container(m)
    gateway = box.endpoints[0].gateway
    for device in ("eth0", "all"):
        netns.inside(
            box.path, lambda d=device: Path(f"/proc/sys/net/ipv4/conf/{d}/route_localnet").write_text("1")
        )
    for device in ("wherry0", "all"):
        for key, value in (("accept_local", "1"), ("rp_filter", "0")):
            Path(f"/proc/sys/net/ipv4/conf/{device}/{key}").write_text(value)
    liar = netns.inside(box.path, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    liar.bind(("127.0.0.1", 4000))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trusting:
        trusting.bind(("0.0.0.0", 5000))
        trusting.settimeout(patiently(QUIET))
        liar.sendto(b"let me in", (gateway, 5000))
        with pytest.raises(TimeoutError):
            trusting.recvfrom(100)
        # the one rule that keeps it out
        m.parts.publishing.unwatch()
        listing = shell("nft", "-a", "list", "chain", "inet", "wherry", "guard")
        (rule,) = [line for line in listing.splitlines() if "ip saddr 127.0.0.0/8 drop" in line]
        shell("nft", "delete", "rule", "inet", "wherry", "guard", "handle", rule.split()[-1])
        trusting.settimeout(patiently(5))
        liar.sendto(b"let me in", (gateway, 5000))
        assert trusting.recvfrom(100) == (b"let me in", ("127.0.0.1", 4000))


@on_a_host
def test_other_hosts_do_not_reach_containers_directly(tmp_path: Path) -> None:
    m = manager(tmp_path)
    m.start()
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    web = container(m, PortMapping(container_port=80, host_port=8080))
    serve(web.path, 80, "web")
    assert ask(lan, ip_of(web), 80, timeout=QUIET) == "silence"
    assert ask(lan, "198.51.100.1", 8080) == "web 198.51.100.2"
    m.parts.publishing.unwatch()
    shell("nft", "flush", "chain", "inet", "wherry", "forward")
    assert ask(lan, ip_of(web), 80) == "web 198.51.100.2"


@pytest.mark.parametrize("bridge_nf", [False, True])
@on_a_host
def test_without_icc_neighbours_do_not_meet(tmp_path: Path, bridge_nf: bool) -> None:
    bridge_netfilter(bridge_nf)
    m = manager(tmp_path, config=NetworkConfig(icc=False))
    m.start()
    web = container(m, PortMapping(container_port=80, host_port=8080))
    neighbour = container(m)
    serve(web.path, 80, "web")
    assert ask(neighbour.path, ip_of(web), 80, timeout=QUIET) == "silence"
    assert ask(None, "127.0.0.1", 8080).startswith("web ")
    if not bridge_nf:
        # with it, the kernel translates the address within the bridge, where the two are strangers
        assert ask(neighbour.path, web.endpoints[0].gateway, 8080).startswith("web ")


@on_a_host
def test_drop_in_a_table_of_the_host_still_drops(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.write_text(
        "table inet filter {\n chain f { type filter hook forward priority 10; policy drop; }\n}\n"
        "table ip mine {\n set s { type ipv4_addr; elements = { 192.0.2.9 } }\n}\n"
    )
    shell("nft", "-f", str(rules))
    tables = ("inet filter", "ip mine")
    before = [shell("nft", "list", "table", *t.split()) for t in tables]
    m = manager(tmp_path)
    assert any(line.startswith("chain inet filter f of the host drops") for line in m.start())
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    web = container(m, PortMapping(container_port=80, host_port=8080))
    serve(web.path, 80, "web")
    assert ask(lan, "198.51.100.1", 8080, timeout=QUIET) == "silence"
    assert ask(None, "127.0.0.1", 8080).startswith("web "), "the host's own traffic is not forwarded"
    m.sandboxes.delete(web.container_id)
    m.teardown()
    assert [shell("nft", "list", "table", *t.split()) for t in tables] == before
    assert "wherry" not in shell("nft", "list", "tables")


@on_a_host
def test_host_firewall_reload_does_not_break_published_ports(tmp_path: Path) -> None:
    m = manager(tmp_path)
    m.start()
    web = container(m, PortMapping(container_port=80, host_port=8080))
    serve(web.path, 80, "web")
    shell("nft", "flush", "ruleset")
    until(lambda: "8080" in shell("nft", "list", "ruleset"), "the table to come back")
    assert ask(None, "127.0.0.1", 8080).startswith("web ")
    # and in the very moment of a start, when nobody has been told yet
    m.parts.publishing.unwatch()
    shell("nft", "flush", "ruleset")
    other = container(m, PortMapping(container_port=80, host_port=8081))
    serve(other.path, 80, "other")
    assert ask(None, "127.0.0.1", 8081).startswith("other ")
    assert ask(None, "127.0.0.1", 8080).startswith("web ")
    m.sandboxes.delete(other.container_id)
    assert "8081" not in shell("nft", "list", "ruleset")
    m.shutdown()


@on_a_host
def test_udp_client_that_never_stops_finds_the_new_container(tmp_path: Path) -> None:
    m = manager(tmp_path)
    m.start()
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    assert ask(lan, "198.51.100.1", 5353, udp=True, timeout=QUIET, source_port=4000) in ("silence", "refused")
    for word in ("first", "second"):
        box = container(m, PortMapping(container_port=53, proto="udp", host_port=5353))
        serve(box.path, 53, word, udp=True)
        got = ask(lan, "198.51.100.1", 5353, udp=True, source_port=4000)
        assert got == f"{word} 198.51.100.2"
        m.sandboxes.delete(box.container_id)


@on_a_host
def test_port_conflicts_in_dockers_words(tmp_path: Path) -> None:
    m = manager(tmp_path)
    m.start()
    mapping = PortMapping(container_port=80, host_port=8080)
    container(m, mapping)
    before = footprint(tmp_path)
    prefix = r"driver failed programming external connectivity on endpoint test \([0-9a-f]{64}\): "
    with pytest.raises(
        Internal, match=prefix + r"Bind for 0\.0\.0\.0:8080 failed: port is already allocated"
    ):
        container(m, mapping)
    with pytest.raises(Internal, match=r"Bind for 127\.0\.0\.1:8080 failed: port is already allocated"):
        container(m, PortMapping(container_port=80, host_ip="127.0.0.1", host_port=8080))
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 9090))
        taken.listen()
        words = prefix + r"failed to bind host port for 0\.0\.0\.0:9090: address already in use"
        with pytest.raises(Internal, match=words):
            container(
                m,
                PortMapping(container_port=81, host_port=8181),
                PortMapping(container_port=80, host_port=9090),
            )
    with pytest.raises(Internal, match="cannot assign requested address"):
        container(m, PortMapping(container_port=80, host_ip="203.0.113.7", host_port=8082))
    assert footprint(tmp_path) == before
    container(m, PortMapping(container_port=81, host_port=8181))


@on_a_host
def test_host_programs_are_kept_from_published_ports(tmp_path: Path) -> None:
    m = manager(tmp_path)
    m.start()
    box = container(
        m,
        PortMapping(container_port=80, host_port=8080),
        PortMapping(container_port=53, proto="udp", host_port=5353),
    )
    for kind, port in ((socket.SOCK_STREAM, 8080), (socket.SOCK_DGRAM, 5353)):
        with socket.socket(socket.AF_INET, kind) as mine:
            mine.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind == socket.SOCK_STREAM))
            with pytest.raises(OSError, match="Address already in use"):
                mine.bind(("127.0.0.1", port))
                mine.listen()
    m.sandboxes.delete(box.container_id)
    with socket.socket() as mine:
        mine.bind(("127.0.0.1", 8080))


@on_a_host
def test_random_ports_and_ranges_avoid_what_is_taken(tmp_path: Path) -> None:
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40003")
    m = manager(tmp_path)
    m.start()
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 40001))
        taken.listen()
        any_port = PortMapping(container_port=80)
        got = [container(m, any_port).ports[0].host_port for _ in range(3)]
        assert sorted(got) == [40000, 40002, 40003]
        with pytest.raises(Internal, match="all ports are allocated"):
            container(m, any_port)
        one_of = PortMapping(container_port=80, host_port=40001, host_port_end=40005)
        assert [container(m, one_of).ports[0].host_port for _ in range(2)] == [40004, 40005]
        with pytest.raises(Internal, match="all ports are allocated"):
            container(m, one_of)


@on_a_host
def test_nothing_is_left_behind(tmp_path: Path) -> None:
    m = manager(tmp_path)
    m.start()
    container(m, PortMapping(container_port=1, host_port=1111))
    before = footprint(tmp_path)
    ports = [PortMapping(container_port=p, proto=q) for p in range(80, 90) for q in ("tcp", "udp", "sctp")]
    boxes = [container(m, *ports), container(m, *ports), container(m), container(m, mode="none")]
    during = footprint(tmp_path)
    assert all(during[key] != before[key] for key in before), "every kind of thing was made"
    for box in boxes:
        m.sandboxes.delete(box.container_id)
        m.sandboxes.delete(box.container_id)
    m.settle()
    assert footprint(tmp_path) == before


@on_a_host
def test_interface_is_taken_from_a_namespace_that_is_held(tmp_path: Path) -> None:
    m = manager(tmp_path)
    m.start()
    before = footprint(tmp_path)
    box = container(m)
    holder = netns.inside(box.path, lambda: subprocess.Popen(["sleep", "100"]))
    try:
        m.sandboxes.delete(box.container_id)
        assert box.endpoints[0].host_ifname in str(footprint(tmp_path)["links"])
        m.settle()
        assert footprint(tmp_path) == before
    finally:
        holder.kill()
        holder.wait()


def stop(m: NetworkRoom) -> None:
    m.shutdown()
    m.parts.rows.db.close()


STEPS = {
    "nothing": (SandboxManager, "_record"),
    "sandbox row": (Networks, "insert_endpoint"),
    "ports held": (Networks, "insert_published"),
    "rows": (sandboxes, "build"),
    "namespace": (BridgeDriver, "_attach_host"),
    "veth": (sandboxes, "_configure"),
    "interfaces": (sandboxes, "_route"),
    "routes": (Firewall, "change"),
    "elements": (conntrack, "forget_udp"),
    "published": (DnsServer, "join"),
}
"""What is done already when the named function is reached."""


@pytest.mark.parametrize("step", STEPS)
@on_a_host
def test_failure_at_any_step_is_undone(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    m = manager(tmp_path)
    m.start()
    container(m)
    before = footprint(tmp_path)
    target, function = STEPS[step]

    def fail(*_: object, **__: object) -> None:
        raise Internal("the lights went out")

    with monkeypatch.context() as patch:
        patch.setattr(target, function, fail)
        with pytest.raises(Internal, match="the lights went out"):
            container(m, PortMapping(container_port=80, proto="udp", host_port=8080))
    m.settle()
    assert footprint(tmp_path) == before
    container(m, PortMapping(container_port=80, proto="udp", host_port=8080))


@pytest.mark.parametrize("step", [*STEPS, "all"])
@on_a_host
def test_daemon_killed_at_any_step_is_cleaned_up_after(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = manager(tmp_path)
    first.start()
    stop(first)
    before = footprint(tmp_path)

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        m = manager(tmp_path)
        m.start()
        if step != "all":
            monkeypatch.setattr(*STEPS[step], die)
        container(m, PortMapping(container_port=80, proto="udp", host_port=8080))
        die()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    second = manager(tmp_path)
    second.start()
    lines = second.restore({})
    assert len(lines) == (0 if step in ("nothing", "sandbox row") else 1), lines
    stop(second)
    assert footprint(tmp_path) == before


@on_a_host
def test_restart_keeps_the_living_and_releases_the_dead(tmp_path: Path) -> None:
    first = manager(tmp_path)
    first.start()
    live = container(first, PortMapping(container_port=80, host_port=8080))
    dead = container(first, PortMapping(container_port=80, host_port=8081))
    serve(live.path, 80, "live")
    process = netns.inside(live.path, lambda: subprocess.Popen(["sleep", "100"]))
    first.shutdown()
    assert ask(None, "127.0.0.1", 8080).startswith("live "), "no daemon is needed"
    netns.unpin(live.path)
    # leftovers that no row knows
    stray = tmp_path / "run" / "netns" / ("f" * 64)
    netns.create(stray, lambda: None)
    shell("ip", "link", "add", "veth0000000", "type", "veth", "peer", "name", "veth0000001")
    shell("ip", "link", "set", "veth0000000", "alias", "wherry:default:" + "e" * 64)
    try:
        second = manager(tmp_path)
        second.start()
        lines = second.restore({live.container_id: process.pid})
        assert [line.split(" ")[0] for line in lines] == ["released", "removed", "removed"], lines
        assert second.sandboxes.get(live.container_id) == live
        assert second.sandboxes.get(dead.container_id) is None
        assert ask(None, "127.0.0.1", 8080).startswith("live ")
        assert netns.is_pinned(live.path)
        assert not stray.exists()
        assert "veth0000000" not in shell("ip", "link")
        assert "8081" not in shell("nft", "list", "ruleset")
        with pytest.raises(Internal, match="port is already allocated"):
            container(second, PortMapping(container_port=80, host_port=8080))
        container(second, PortMapping(container_port=80, host_port=8081))
        # the bridge was lost meanwhile: made anew, its ports come back to it
        second.shutdown()
        shell("ip", "link", "del", "wherry0")
        third = manager(tmp_path)
        third.start()
        third.restore({live.container_id: process.pid})
        assert ask(None, "127.0.0.1", 8080).startswith("live ")
        third.teardown()
    finally:
        process.kill()
        process.wait()


@on_a_host
def test_published_port_taken_while_the_daemon_was_away_is_reported(tmp_path: Path) -> None:
    first = manager(tmp_path)
    first.start()
    box = container(first, PortMapping(container_port=80, host_port=8080))
    first.shutdown()
    with socket.socket() as thief:
        thief.bind(("0.0.0.0", 8080))
        thief.listen()
        second = manager(tmp_path)
        second.start()
        (line,) = second.restore({box.container_id: 0})
        assert "port 0.0.0.0:8080/tcp is not held: address already in use" in line
        second.sandboxes.delete(box.container_id)


@on_a_host
def test_two_daemons_side_by_side(tmp_path: Path) -> None:
    found = []
    for name, instance in (("one", "default"), ("two", "00c0ffee")):
        (tmp_path / name).mkdir()
        m = manager(tmp_path / name, instance=instance)
        m.start()
        port = 8080 if name == "one" else 8081
        box = container(m, PortMapping(container_port=80, host_port=port))
        serve(box.path, 80, name)
        found.append((m, box, port))
    (one, box1, _), (two, box2, _) = found
    assert one.networks.get("bridge").bridge_name == "wherry0"
    assert two.networks.get("bridge").bridge_name == "wh-00c0ffee"
    assert ip_of(box1).rpartition(".")[0] != ip_of(box2).rpartition(".")[0]
    for _, _, port in found:
        assert ask(None, "127.0.0.1", port).startswith("one" if port == 8080 else "two")
    assert ask(box1.path, ip_of(box2), 80, timeout=QUIET) == "silence", "bridges are strangers"
    assert ask(box1.path, box1.endpoints[0].gateway, 8081).startswith("two ")
    with pytest.raises(Internal, match="address already in use"):
        container(two, PortMapping(container_port=80, host_port=8080))
    one.restore({box1.container_id: 0})
    one.teardown()
    assert ask(None, "127.0.0.1", 8081).startswith("two ")
    two.teardown()
    assert shell("nft", "list", "ruleset") == ""
    assert "wh" not in " ".join(line.split(":")[1] for line in shell("ip", "-o", "link").splitlines())


@on_a_host
def test_many_at_once_get_addresses_of_their_own(tmp_path: Path) -> None:
    m = manager(tmp_path)
    m.start()
    before = footprint(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        boxes = list(pool.map(lambda _: container(m, PortMapping(container_port=80)), range(40)))
        assert len({ip_of(b) for b in boxes}) == 40
        assert len({b.ports[0].host_port for b in boxes}) == 40
        list(pool.map(lambda b: m.sandboxes.delete(b.container_id), boxes))
    m.settle()
    assert footprint(tmp_path) == before


@on_a_host
def test_pins_do_not_outlive_their_container_in_other_mount_namespaces(tmp_path: Path) -> None:
    m = manager(tmp_path)
    m.start()
    box = container(m)
    ready, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        # as a service manager starts a service: a copy of every mount, that follows the original
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", "none", syscalls.MS_REC | syscalls.MS_SLAVE)
        os.write(say, b".")
        signal.pause()
    try:
        os.read(ready, 1)
        seen = Path(f"/proc/{pid}/mountinfo")
        assert box.container_id in seen.read_text()
        m.sandboxes.delete(box.container_id)
        assert box.container_id not in seen.read_text()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@on_a_host
def test_what_a_container_sees(tmp_path: Path) -> None:
    m = manager(tmp_path, config=NetworkConfig(bip="10.77.0.1/24", mtu=1400))
    m.start()
    box = container(m)
    addresses = shell("ip", "-br", "addr", where=box.path).split()
    assert addresses == ["lo", "UNKNOWN", "127.0.0.1/8", "::1/128", *addresses[4:5], "UP", "10.77.0.2/24"]
    assert addresses[4].startswith("eth0@")
    link = shell("ip", "link", "show", "eth0", where=box.path)
    assert "mtu 1400" in link
    assert "02:42:0a:4d:00:02" in link
    assert shell("ip", "route", where=box.path).splitlines()[0].startswith("default via 10.77.0.1 dev eth0")
    alone = container(m, mode="none")
    assert shell("ip", "-br", "addr", where=alone.path).split() == ["lo", "UNKNOWN", "127.0.0.1/8", "::1/128"]
    assert alone.endpoints[0].network_name == "none"


@on_a_host
def test_default_networks_stay_what_they_are(tmp_path: Path) -> None:
    first = manager(tmp_path)
    first.start()
    assert first.start() == [], "nothing is left to do"
    networks = first.networks.list()
    assert [(n.name, n.driver) for n in networks] == [
        ("bridge", "bridge"),
        ("host", "host"),
        ("none", "null"),
    ]
    bridge = networks[0]
    assert bridge.subnets[0].cidr == "172.17.0.0/16"
    assert (
        first.networks.get("default")
        == first.networks.get("bridge")
        == first.networks.get(bridge.id)
        == first.networks.get(bridge.id[:5])
    )
    with pytest.raises(NotFound, match="network nothing not found"):
        first.networks.get("nothing")
    with pytest.raises(NotFound):
        first.networks.get("")
    stop(first)
    second = manager(tmp_path)
    second.start()
    assert second.networks.list() == networks
    stop(second)


@on_a_host
def test_other_bip_waits_for_running_containers(tmp_path: Path) -> None:
    first = manager(tmp_path)
    first.start()
    box = container(first)
    stop(first)
    second = manager(tmp_path, config=NetworkConfig(bip="10.9.0.1/24"))
    lines = second.start()
    assert lines == ["network bridge keeps 172.17.0.0/16: containers use it; bip 10.9.0.1/24 waits"]
    second.restore({})
    second.settle()
    stop(second)
    third = manager(tmp_path, config=NetworkConfig(bip="10.9.0.1/24"))
    assert third.start() == []
    assert ip_of(container(third)) == "10.9.0.2"
    assert third.networks.get("bridge").id == box.endpoints[0].network_id
    stop(third)


@on_a_host
def test_subnets_in_use_are_avoided(tmp_path: Path) -> None:
    other_host(tmp_path / "hosts", "lan", "172.17.40")
    shell("ip", "route", "add", "172.18.0.0/24", "via", "172.17.40.2")
    m = manager(tmp_path)
    m.start()
    assert m.networks.get("bridge").subnets[0].cidr == "172.19.0.0/16"
    stop(m)


@on_a_host
def test_the_default_bridge_moves_when_its_subnet_is_taken(tmp_path: Path) -> None:
    first = manager(tmp_path)
    first.start()
    first.networks.create(NetworkRequest(name="mine", subnets=(Subnet(cidr="10.9.0.0/24"),)))
    assert first.networks.get("bridge").subnets[0].cidr == "172.17.0.0/16"
    first.shutdown()
    for name in ("wherry0", first.networks.get("mine").bridge_name):
        shell("ip", "link", "del", name)
    # as another engine does, while this host has been booted anew
    shell("ip", "link", "add", "docker0", "type", "bridge")
    shell("ip", "addr", "add", "172.17.0.1/16", "dev", "docker0")
    shell("ip", "addr", "add", "10.9.0.200/25", "dev", "docker0")
    shell("ip", "link", "set", "docker0", "up")
    second = manager(tmp_path)
    lines = second.start()
    assert lines == [
        "moved network bridge from 172.17.0.0/16 to 172.18.0.0/16: this host has another route to "
        "172.17.0.0/16",
        "subnet 10.9.0.0/24 of network mine collides with 10.9.0.128/25, which docker0 leads to: some of its "
        "addresses are out of reach",
    ]
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    box = container(second, PortMapping(container_port=80, host_port=8080))
    serve(box.path, 80, "box")
    assert ip_of(box) == "172.18.0.2"
    assert ask(lan, "198.51.100.1", 8080) == "box 198.51.100.2"
    second.shutdown()
    # now that a container is there it stays, whoever comes
    shell("ip", "addr", "add", "172.18.5.1/24", "dev", "docker0")
    third = manager(tmp_path)
    assert third.start()[0] == (
        "subnet 172.18.0.0/16 of network bridge collides with 172.18.5.0/24, which docker0 leads to: some of "
        "its addresses are out of reach"
    )
    third.restore({box.container_id: 0})
    assert third.networks.get("bridge").subnets[0].cidr == "172.18.0.0/16"
    assert ask(lan, "198.51.100.1", 8080) == "box 198.51.100.2"
    third.sandboxes.delete(box.container_id)
    third.settle()
    third.shutdown()
    # a way to more than our subnet is no reason to move: ours is the more precise
    shell("ip", "addr", "del", "172.18.5.1/24", "dev", "docker0")
    shell("ip", "route", "add", "172.18.0.0/15", "via", "198.51.100.2")
    fourth = manager(tmp_path)
    assert "subnet 172.18.0.0/16 of network bridge collides with 172.18.0.0/15" in fourth.start()[0]
    assert fourth.networks.get("bridge").subnets[0].cidr == "172.18.0.0/16"


@on_a_host
def test_forwarding_is_enabled_and_told(tmp_path: Path) -> None:
    switch = Path("/proc/sys/net/ipv4/ip_forward")
    switch.write_text("0")
    m = manager(tmp_path, config=NetworkConfig(ip_forward=False))
    assert m.start() == ["IPv4 forwarding is disabled: containers reach this host only"]
    assert switch.read_text() == "0\n"
    stop(m)
    m = manager(tmp_path)
    (line,) = m.start()
    assert line.startswith("set net.ipv4.ip_forward to 1 (it was 0)")
    assert switch.read_text() == "1\n"
    stop(m)


def test_the_lab_reports_failures(tmp_path: Path) -> None:
    def fails() -> None:
        raise AssertionError("as it should")

    assert child(fails) == 1
