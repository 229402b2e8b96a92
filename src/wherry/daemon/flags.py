"""The flags of ``wherryd``. A flag that is not given stays ``None``, so that the file can set the value."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from wherry import __version__
from wherry.daemon import refused
from wherry.daemon.defaults import DEFAULT_CONFIG, DEFAULT_ROOT, DEFAULT_RUN, LEVELS
from wherry.registry.config import ATTEMPTS, DOWNLOADS, UPLOADS
from wherry.state.events import KEEP, KEEP_DAYS

Add = Callable[..., Any]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wherryd", description="The wherry daemon: the Engine API on a socket.", allow_abbrev=False
    )
    for group in (_places, _logs, _containers, _networks, _images, _modes):
        group(parser.add_argument)
    refused.add_flags(parser)
    return parser


def _truth(text: str) -> bool:
    """A flag's value, parsed as Go does. :raises ValueError: not a boolean."""
    lowered = text.lower()
    if lowered in ("1", "t", "true"):
        return True
    if lowered in ("0", "f", "false"):
        return False
    raise ValueError(text)


def _switch(add: Add, name: str, help: str) -> None:
    """``--name``, ``--name=true`` or ``--name=false``."""
    add(f"--{name}", nargs="?", const=True, type=_truth, metavar="BOOL", help=help)


def _places(add: Add) -> None:
    """Directories, and the sockets of the API."""
    add(
        "--root", "--data-root", dest="root", metavar="DIR", help=f"persistent state (default {DEFAULT_ROOT})"
    )
    add("--run", "--exec-root", dest="run", metavar="DIR", help=f"runtime state (default {DEFAULT_RUN})")
    add("-H", "--host", action="append", metavar="URL", help="unix://PATH, tcp://ADDRESS:PORT or fd://")
    add("--tls", action="store_true", default=None, help="use TLS on tcp listeners")
    add("--tlsverify", action="store_true", default=None, help="use TLS and verify clients")
    add("--tlscacert", metavar="FILE", help="trust certificates signed by this CA")
    add("--tlscert", metavar="FILE", help="the daemon's certificate")
    add("--tlskey", metavar="FILE", help="the daemon's key")
    add("--insecure-tcp", action="store_true", default=None, help="allow tcp without TLS beyond loopback")
    add("-G", "--group", metavar="NAME", help="group that owns the unix socket")
    add("-s", "--storage-driver", metavar="NAME", help="overlay or vfs (default: the first that works)")
    add(
        "--shutdown-timeout",
        type=int,
        metavar="SECONDS",
        help="that requests under way may take (default 15)",
    )
    add("-p", "--pidfile", metavar="FILE", help="where to write the pid (default <run>/wherryd.pid)")


def _logs(add: Add) -> None:
    """Logging of the daemon and of containers, and which events are kept."""
    add("-l", "--log-level", choices=LEVELS, help="what to log (default info)")
    add("--log-format", choices=("text", "json"), help="how to log (default text)")
    add("--log-driver", metavar="NAME", help="log driver of containers (default local)")
    add("--log-opt", action="append", metavar="KEY=VALUE", help="option of containers' log driver")
    _switch(add, "raw-logs", "the log never has colours; false is refused")
    add("-D", "--debug", action="store_true", default=None, help="log everything")
    add("--metrics-addr", metavar="HOST:PORT", help="serve Prometheus' metrics there, on /metrics")
    add("--metrics-label", action="append", metavar="KEY", help="label of containers that their metrics have")
    add(
        "--metrics-containers",
        metavar="WHICH",
        help="that have metrics of their own: all (default), none, or those with a label (KEY or KEY=VALUE)",
    )
    add("--event-limit", type=int, metavar="N", help=f"events that are kept (default {KEEP})")
    add("--event-days", type=int, metavar="N", help=f"days that events are kept (default {KEEP_DAYS})")


def _containers(add: Add) -> None:
    """Defaults and limits of containers."""
    add("--default-runtime", metavar="NAME", help="OCI runtime (default crun, else runc)")
    add("--add-runtime", action="append", metavar="NAME=PATH", help="another OCI runtime")
    add("--label", action="append", metavar="KEY=VALUE", help="label of the daemon")
    add("--default-shm-size", metavar="SIZE", help="of containers' /dev/shm (default 64M)")
    add("--default-ipc-mode", choices=("private", "shareable"), help="of containers (default private)")
    add(
        "--default-cgroupns-mode", choices=("host", "private"), help="of containers (default: the host's way)"
    )
    add(
        "--default-ulimit", action="append", metavar="NAME=SOFT[:HARD]", help="limit of containers' processes"
    )
    add("--init-path", metavar="FILE", help="what --init runs (default /usr/bin/tini-static)")
    _switch(add, "no-new-privileges", "default for containers that do not set it")
    add("--seccomp-profile", metavar="FILE", help="of containers (default builtin; or unconfined)")
    _switch(add, "init", "run an init in containers that do not set --init")
    _switch(add, "live-restore", "containers always outlive the daemon; false is refused")
    _switch(add, "experimental", "nothing is experimental; true is refused")
    add("--exec-opt", action="append", metavar="KEY=VALUE", help="native.cgroupdriver=cgroupfs")
    add("--cgroup-parent", metavar="PATH", help="parent of containers' cgroups (default /wherry)")
    add("--cdi-spec-dir", action="append", metavar="DIR", help="where CDI specs are (default /etc/cdi, …)")
    add(
        "--plugin-dir",
        action="append",
        metavar="DIR",
        help="where plugins are (/run/docker/plugins, …)",
    )
    add("--plugin-timeout", type=int, metavar="SECONDS", help="that a plugin may take (default 30)")
    add("--cpu-rt-period", type=int, metavar="US", help="real-time period of the containers' cgroup")
    add("--cpu-rt-runtime", type=int, metavar="US", help="real-time scheduling that containers may share")


def _networks(add: Add) -> None:
    """Networks, published ports, names."""
    _switch(add, "icc", "containers of the default bridge reach each other (default true)")
    _switch(add, "ip-forward", "turn the host's forwarding on (default true)")
    _switch(add, "ip-masq", "give containers' packets the host's address (default true)")
    _switch(add, "iptables", "published ports need the firewall; false is refused")
    _switch(add, "ip6tables", "published ports need the firewall; false is refused")
    _switch(add, "userland-proxy", "there is none; true is refused")
    add("--firewall-backend", metavar="NAME", help="nftables, which is the only one")
    add("-b", "--bridge", metavar="NAME", help="a bridge of the host's as the default one, or none")
    add("--bip", metavar="CIDR", help="address of the default bridge")
    add("--bip6", metavar="CIDR", help="IPv6 address of the default bridge")
    _switch(add, "ipv6", "the default bridge has IPv6 as well")
    add(
        "--default-address-pool",
        action="append",
        metavar="base=CIDR,size=N",
        help="where subnets are taken from",
    )
    add("--mtu", type=int, metavar="BYTES", help="of container networks (default 1500)")
    add("--ip", metavar="ADDRESS", help="where ports are published by default (default 0.0.0.0)")
    add(
        "--publish-firewall",
        choices=("own", "host"),
        help="host: published ports answer only whom the host's own input rules let in (default own)",
    )
    add("--cluster-store", metavar="URL", help="etcd://HOST:PORT[,…]: where overlay networks are kept")
    add("--cluster-advertise", metavar="ADDRESS", help="this host's address for the others, or interface")
    add("--cluster-store-opt", action="append", metavar="KEY=VALUE", help="ttl, kv.cacertfile, …")
    add("--host-gateway-ip", metavar="ADDRESS", help="what host-gateway stands for (default: the gateway)")
    add("--fixed-cidr", metavar="CIDR", help="the part of --bip's subnet to hand out from")
    add("--fixed-cidr-v6", metavar="CIDR", help="the same for IPv6; without --bip6 the subnet itself")
    add("--default-gateway", metavar="ADDRESS", help="router of the default bridge's containers")
    add("--default-gateway-v6", metavar="ADDRESS", help="the same for IPv6")
    add(
        "--default-network-opt",
        action="append",
        metavar="DRIVER=KEY=VALUE",
        help="option of networks that do not say it themselves",
    )
    add("--dns", action="append", metavar="ADDRESS", help="name server of containers")
    add("--dns-search", action="append", metavar="DOMAIN", help="search domain of containers")
    add("--dns-opt", action="append", metavar="OPTION", help="resolver option of containers")


def _images(add: Add) -> None:
    """Images and registries."""
    add(
        "--image-keep-days",
        type=int,
        metavar="N",
        help="days that a prune spares earlier versions (default 30)",
    )
    add("--image-keep-versions", type=int, metavar="N", help="how many of each name it spares (default 10)")
    add("--discard-blobs", action="store_true", default=None, help="keep pulled layers unpacked only")
    add("--registry-mirror", action="append", metavar="URL", help="mirror of Docker Hub, asked first")
    add("--insecure-registry", action="append", metavar="HOST", help="registry that needs no good TLS")
    add("--max-concurrent-downloads", type=int, metavar="N", help=f"of one pull (default {DOWNLOADS})")
    add("--max-concurrent-uploads", type=int, metavar="N", help=f"of one push (default {UPLOADS})")
    add("--max-download-attempts", type=int, metavar="N", help=f"of one transfer (default {ATTEMPTS})")
    add("--http-proxy", metavar="URL", help="proxy for registries over HTTP")
    add("--https-proxy", metavar="URL", help="proxy for registries over HTTPS")
    add("--no-proxy", metavar="HOSTS", help="registries reached without a proxy, with commas between")


def _modes(add: Add) -> None:
    """Modes other than serving, and the file for them."""
    add("--config-file", metavar="FILE", help=f"configuration (default {DEFAULT_CONFIG})")
    add("--validate", action="store_true", help="check the configuration and exit")
    add(
        "--rebuild",
        action="store_true",
        help="make the rows of a lost or damaged database again from what is below the root, and exit",
    )
    add("--restore", metavar="FILE", help="put a backup below an empty root (- for stdin), and exit")
    add("--teardown", action="store_true", help="remove bridge, firewall table and namespaces, and exit")
    add("-v", "--version", action="version", version=f"wherryd version {__version__}")
