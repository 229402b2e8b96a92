"""dockerd's options that wherryd does not support: refused by name, never accepted and ignored.

Flags by dockerd's names; the keys of ``daemon.json`` are the same, except for those in :data:`_KEYS`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

from wherry.errors import InvalidArgument

_LATER = "is not implemented yet"
_NO_DAEMON = "there is no containerd behind this daemon"
FLAGS: Mapping[str, str] = {
    "allow-direct-routing": _LATER,
    "authorization-plugin": _LATER,
    "bridge-accept-fwmark": _LATER,
    "containerd": _NO_DAEMON,
    "containerd-namespace": _NO_DAEMON,
    "containerd-plugins-namespace": _NO_DAEMON,
    "cri-containerd": _NO_DAEMON,
    "feature": _LATER,
    "ip-forward-no-drop": _LATER,
    "network-control-plane-mtu": "belongs to swarm mode, which wherry does not have",
    "node-generic-resource": "belongs to swarm mode, which wherry does not have",
    "rootless": _LATER,
    "selinux-enabled": "is not implemented yet",
    "storage-opt": _LATER,
    "swarm-default-advertise-addr": "belongs to swarm mode, which wherry does not have",
    "userland-proxy-path": "there is no userland proxy",
    "userns-remap": _LATER,
}
_KEYS = {
    "authorization-plugin": "authorization-plugins",
    "feature": "features",
    "node-generic-resource": "node-generic-resources",
    "storage-opt": "storage-opts",
}
_ONLY_IN_FILES = {
    "allow-nondistributable-artifacts": "is no option any more: such layers are always pushed",
    "builder": _LATER,
    "nri-opts": _LATER,
}
FIXED: Mapping[str, tuple[Any, str]] = {
    "live-restore": (True, "containers always outlive the daemon"),
    "userland-proxy": (False, "there is no userland proxy"),
    "iptables": (True, "published ports need the firewall"),
    "ip6tables": (True, "published ports need the firewall"),
    "experimental": (False, "nothing is experimental here"),
    "firewall-backend": ("nftables", "rules are made with nftables"),
    "raw-logs": (True, "the log never has colours"),
}
"""Options of dockerd that have only one possible value here: only that value is accepted."""


class _Refuse(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option: object = None,
    ) -> None:
        raise InvalidArgument(f"cannot use {option}: {_reason(self.dest.replace('_', '-'))}")


def _reason(name: str) -> str:
    return FLAGS.get(name) or _ONLY_IN_FILES[name]


def add_flags(parser: argparse.ArgumentParser) -> None:
    for name in FLAGS:
        parser.add_argument(f"--{name}", action=_Refuse, nargs="?", help=argparse.SUPPRESS)


def check_keys(names: Iterable[str]) -> None:
    """:raises InvalidArgument: the file asks for something
    that wherryd does not support; the text names it."""
    known = {_KEYS.get(name, name): name for name in FLAGS} | {name: name for name in _ONLY_IN_FILES}
    for name in names:
        if name in known:
            raise InvalidArgument(f"cannot use {name}: {_reason(known[name])}")


def check_fixed(said: Mapping[str, Any]) -> None:
    """:raises InvalidArgument: another value than the only possible one."""
    for name, (only, why) in FIXED.items():
        value = said.get(name.replace("-", "_"))
        if value is not None and value != only:
            shown = str(value).lower() if isinstance(value, bool) else value
            raise InvalidArgument(f"cannot use {name}={shown}: {why}")
