"""dockerd's options of the default bridge and for all containers, on daemons that have them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from daemonlab import LabDaemon, new_base

pytestmark = pytest.mark.kernel
MTU = "com.docker.network.driver.mtu"


@contextmanager
def told(*arguments: str, **keys: object) -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base(), *arguments)
    (daemon.base / "daemon.json").write_text(json.dumps({k.replace("_", "-"): v for k, v in keys.items()}))
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


def inside(daemon: LabDaemon, *command: str, options: tuple[str, ...] = ()) -> str:
    return daemon.docker("run", "--rm", *options, "busybox", *command).ok()


def test_ipv6_and_a_router_of_ones_own() -> None:
    keys = {
        "bip": "10.217.5.1/24",
        "fixed_cidr": "10.217.5.64/26",
        "default_gateway": "10.217.5.9",
        "ipv6": True,
        "fixed_cidr_v6": "fd00:217:5::/64",
        "default_gateway_v6": "fd00:217:5::77",
        "default_network_opts": {"bridge": {MTU: "1432"}},
    }
    with told(**keys) as daemon:
        shown = daemon.api("GET", "/networks/bridge").json
        assert shown["EnableIPv6"] is True
        four, six = shown["IPAM"]["Config"]
        assert four["AuxiliaryAddresses"] == {"DefaultGatewayIPv4": "10.217.5.9"}
        assert (six["Subnet"], six["AuxiliaryAddresses"]) == (
            "fd00:217:5::/64",
            {"DefaultGatewayIPv6": "fd00:217:5::77"},
        )
        assert "default via 10.217.5.9" in inside(daemon, "ip", "route")
        assert "default via fd00:217:5::77" in inside(daemon, "ip", "-6", "route")
        assert "inet 10.217.5.6" in inside(daemon, "ip", "addr"), "of the fixed part"
        hosts = inside(daemon, "cat", "/etc/hosts", options=("--add-host", "h:host-gateway"))
        assert "10.217.5.1\th" in hosts, "the host itself is no router here"
        daemon.docker("network", "create", "own").ok()
        assert "mtu 1432" in inside(daemon, "ip", "link", options=("--network", "own"))
        daemon.docker("network", "create", "--opt", f"{MTU}=1444", "other").ok()
        assert "mtu 1444" in inside(daemon, "ip", "link", options=("--network", "other"))
        assert "mtu 1432" not in inside(daemon, "ip", "link"), "the default bridge has --mtu"
        daemon.docker("network", "rm", "own", "other").ok()


def test_ipv6_without_a_subnet_keeps_the_one_it_drew() -> None:
    with told(ipv6=True) as daemon:
        first = daemon.api("GET", "/networks/bridge").json["IPAM"]["Config"]
        assert [":" in config["Subnet"] for config in first] == [False, True]
        assert "inet6 fd" in inside(daemon, "ip", "addr")
        daemon.restart()
        assert daemon.api("GET", "/networks/bridge").json["IPAM"]["Config"] == first


def test_no_bridge() -> None:
    with told(bridge="none") as daemon:
        assert daemon.networks() == {"host", "none"}
        assert "eth0" not in inside(daemon, "ip", "link")
        assert "eth0" not in inside(daemon, "ip", "link", options=("--network", "bridge"))
        done = daemon.docker("create", "-p", "80", "busybox")
        assert done.code == 0 and "No port is published: this daemon has no default bridge" in done.errors
        daemon.docker("network", "create", "own").ok()
        assert "eth0" in inside(daemon, "ip", "link", options=("--network", "own"))
        (daemon.base / "daemon.json").write_text("{}")
        daemon.restart()
        assert "bridge" in daemon.networks() and "eth0" in inside(daemon, "ip", "link")
        box = daemon.docker("run", "-d", "--init", "busybox", "sleep", "1000").ok()
        (daemon.base / "daemon.json").write_text('{"bridge": "none"}')
        daemon.restart()
        assert "bridge stays until its containers have ended" in daemon.log
        daemon.docker("rm", "-f", box).ok()
        daemon.restart()
        assert daemon.networks() == {"host", "none", "own"}
        daemon.docker("network", "rm", "own").ok()


def test_a_bridge_of_the_hosts() -> None:
    name = "wtheirs0"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "addr", "add", "10.217.6.1/24", "dev", name], check=True)
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        with told("--bridge", name, "--fixed-cidr", "10.217.6.128/25") as daemon:
            shown = daemon.api("GET", "/networks/bridge").json
            assert shown["IPAM"]["Config"] == [
                {"Subnet": "10.217.6.0/24", "IPRange": "10.217.6.128/25", "Gateway": "10.217.6.1"}
            ]
            assert shown["Options"]["com.docker.network.bridge.name"] == name
            assert "collides" not in daemon.log
            seen = inside(daemon, "sh", "-c", "ip addr; ping -c 1 -W 5 10.217.6.1 >/dev/null && echo there")
            assert "inet 10.217.6.1" in seen and "there" in seen
            daemon.restart()
            assert "there" in inside(daemon, "sh", "-c", "ping -c 1 -W 5 10.217.6.1 >/dev/null && echo there")
        shown = subprocess.run(
            ["ip", "addr", "show", name], check=True, capture_output=True, text=True
        ).stdout
        assert "10.217.6.1/24" in shown, "the host's own bridge stays as it was"
    finally:
        subprocess.run(["ip", "link", "delete", name], check=False)


def test_a_bridge_that_is_not_there() -> None:
    daemon = LabDaemon(new_base(), "--bridge", "wnone0")
    try:
        daemon.start(ready=False)
        assert daemon.process is not None and daemon.process.wait(60) != 0
        assert "bridge device with non default name wnone0 must be created manually" in daemon.log
        daemon.process = None
    finally:
        daemon.destroy()


def test_defaults_of_security() -> None:
    daemon = LabDaemon(new_base(), "--no-new-privileges")
    profile = daemon.base / "profile.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    daemon.arguments = (*daemon.arguments, "--seccomp-profile", str(profile))
    try:
        daemon.start()
        daemon.bootstrap()
        assert "NoNewPrivs:\t1" in inside(daemon, "cat", "/proc/self/status")
        off = ("--security-opt", "no-new-privileges=false")
        assert "NoNewPrivs:\t0" in inside(daemon, "cat", "/proc/self/status", options=off)
        assert daemon.docker("run", "--rm", "busybox", "mkdir", "/x").code == 1
        builtin = ("--security-opt", "seccomp=builtin")
        assert daemon.docker("run", "--rm", *builtin, "busybox", "mkdir", "/x").code == 0
        build = daemon.docker("build", "-", input=b"FROM busybox\nRUN mkdir /x\n")
        assert build.code != 0 and "Operation not permitted" in build.out + build.errors
        box = daemon.docker("run", "-d", "--init", "busybox", "sleep", "1000").ok()
        assert "NoNewPrivs:\t1" in daemon.docker("exec", box, "cat", "/proc/self/status").ok()
        told = daemon.api("GET", "/info").json["SecurityOptions"]
        assert f"name=seccomp,profile={profile}" in told and "name=no-new-privileges" in told
    finally:
        daemon.destroy()


def test_a_profile_that_is_none() -> None:
    daemon = LabDaemon(new_base(), "--seccomp-profile", "/dev/null")
    try:
        daemon.start(ready=False)
        assert daemon.process is not None and daemon.process.wait(60) != 0
        assert "Decoding seccomp profile failed" in daemon.log
        daemon.process = None
    finally:
        daemon.destroy()
