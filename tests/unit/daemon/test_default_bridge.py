"""What the administrator says of the default bridge, and of networks that do not say it themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wherry.daemon import config
from wherry.daemon.defaultbridge import DefaultBridge
from wherry.errors import InvalidArgument

MTU = "com.docker.network.driver.mtu"


def load(tmp_path: Path, keys: dict[str, Any], *arguments: str) -> config.Config:
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps(keys))
    return config.load(["--config-file", str(file), *arguments])[0]


def test_flags_and_keys_say_the_same(tmp_path: Path) -> None:
    keys = {
        "ipv6": True,
        "bip": "10.5.0.1/24",
        "bip6": "fd00:1::1/64",
        "fixed-cidr": "10.5.0.128/25",
        "fixed-cidr-v6": "fd00:1::/80",
        "default-gateway": "10.5.0.9",
        "default-gateway-v6": "fd00:1::9",
    }
    flags = [f"--{key}" if value is True else f"--{key}={value}" for key, value in keys.items()]
    wanted = DefaultBridge(
        "",
        "10.5.0.1/24",
        "fd00:1::1/64",
        True,
        "10.5.0.128/25",
        "fd00:1::/80",
        "10.5.0.9",
        "fd00:1::9",
        "10.5.0.1",
    )
    assert load(tmp_path, keys).bridge == load(tmp_path, {}, *flags).bridge == wanted
    assert load(tmp_path, keys).host_gateway_ip == "10.5.0.1", "the router is not the host"
    assert load(tmp_path, {}, "-b", "none").bridge == load(tmp_path, {"bridge": "none"}).bridge
    assert load(tmp_path, {"bridge": "br0"}).bridge.name == "br0"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"bridge": "br0", "bip": "10.0.0.1/24"}, "You specified -b & --bip, mutually exclusive options"),
        ({"bridge": "none", "ipv6": True}, "cannot use ipv6: there is no default bridge"),
        (
            {"bridge": "none", "fixed-cidr": "10.0.0.0/24"},
            "cannot use fixed-cidr: there is no default bridge",
        ),
        ({"bridge": "a/b"}, "is not a valid interface name"),
        ({"fixed-cidr-v6": "fd00::/64"}, "cannot use fixed-cidr-v6 without ipv6"),
        ({"ipv6": True, "fixed-cidr-v6": "x"}, "invalid fixed-cidr-v6"),
        ({"ipv6": True, "bip6": "10.0.0.1/24"}, "invalid bip6"),
        ({"ipv6": True, "bip6": "fd00::/64"}, "invalid bip"),
        ({"bip": "fd00::1/64"}, "invalid bip"),
        ({"default-gateway": "10.0.0.9"}, "cannot use default-gateway without bip"),
        (
            {"default-gateway": "10.1.0.9", "bip": "10.0.0.1/24"},
            "default gateway 10.1.0.9 must be part of the network: 10.0.0.0/24",
        ),
        ({"default-gateway": "x", "bip": "10.0.0.1/24"}, "invalid default-gateway"),
        (
            {"default-network-opts": {"bridge": {"odd": "1"}}},
            "invalid default-network-opts: invalid option 'odd'",
        ),
        ({"default-network-opts": {"bridge": {MTU: "5"}}}, "not 68 to 65535"),
    ],
)
def test_what_cannot_be(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        load(tmp_path, keys)


def test_options_of_networks(tmp_path: Path) -> None:
    keys = {"default-network-opts": {"bridge": {MTU: "1400"}, "plugin": {"its": "own"}}}
    flags = (f"--default-network-opt=bridge={MTU}=1400", "--default-network-opt=plugin=its=own")
    found = load(tmp_path, keys).network_options
    assert found == load(tmp_path, {}, *flags).network_options == keys["default-network-opts"]
    with pytest.raises(InvalidArgument, match="expected DRIVER=KEY=VALUE"):
        load(tmp_path, {}, "--default-network-opt=bridge")


def test_security(tmp_path: Path) -> None:
    found = load(tmp_path, {"no-new-privileges": True, "seccomp-profile": "unconfined"})
    assert (found.no_new_privileges, found.seccomp_profile) == (True, "unconfined")
    found = load(tmp_path, {}, "--no-new-privileges", "--seccomp-profile=/etc/x.json")
    assert (found.no_new_privileges, found.seccomp_profile) == (True, "/etc/x.json")
    assert load(tmp_path, {"seccomp-profile": "builtin"}).seccomp_profile == ""
