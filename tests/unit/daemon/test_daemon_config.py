from __future__ import annotations

from pathlib import Path

import pytest

from wherry.daemon import config
from wherry.daemon.stores import instance_of
from wherry.errors import InvalidArgument
from wherry.model.container import LogConfig
from wherry.network.types import ClusterConfig


def load(tmp_path: Path, text: str, *arguments: str) -> config.Config:
    file = tmp_path / "daemon.json"
    file.write_text(text)
    loaded, _only_validate = config.load(["--config-file", str(file), *arguments])
    return loaded


def test_file_and_flags(tmp_path: Path) -> None:
    text = (
        '{"mtu": 1400, "dns": ["1.1.1.1"], "default-shm-size": "128M", "hosts": ["unix:///a"], "icc": false}'
    )
    loaded = load(
        tmp_path, text, "--root", "/r", "--label", "a=1", "--default-address-pool", "base=10.9.0.0/16,size=24"
    )
    assert (loaded.mtu, loaded.dns, loaded.default_shm_size) == (1400, ("1.1.1.1",), 128 << 20)
    assert (loaded.hosts, loaded.icc, loaded.root) == (("unix:///a",), False, Path("/r"))
    assert (loaded.labels, loaded.address_pools) == (("a=1",), (("10.9.0.0/16", 24),))


def test_networks(tmp_path: Path) -> None:
    text = (
        '{"cluster-store": "etcd://a:1", "cluster-advertise": "192.0.2.1",'
        ' "cluster-store-opts": {"ttl": "9"}}'
    )
    loaded = load(tmp_path, text, "--publish-firewall", "host", "--host-gateway-ip", "192.0.2.7")
    assert loaded.cluster == ClusterConfig(store="etcd://a:1", advertise="192.0.2.1", ttl=9)
    assert (loaded.publish_firewall, loaded.host_gateway_ip) == ("host", "192.0.2.7")


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        ('{"mtu": 1400}', ("--mtu", "1300"), "mtu is in both"),
        ('{"hosts": ["unix:///a"]}', ("-H", "unix:///b"), "hosts is in both"),
        ('{"data-root": "/a"}', ("--root", "/b"), "data-root is in both"),
        ('{"odd": 1}', (), "odd"),
        ('{"debug": "yes"}', (), "debug"),
        ("[]", (), "cannot read configuration"),
        ("{", (), "cannot read configuration"),
        ('{"mtu": 5}', (), "invalid mtu"),
        ('{"default-shm-size": "big"}', (), "invalid size"),
        ('{"shutdown-timeout": -1}', (), "invalid shutdown-timeout"),
        ("{}", ("--root", "/a:b"), "must not contain"),
        ("{}", ("--default-address-pool", "base=10.0.0.0/8"), "invalid address pool"),
        ("{}", ("--add-runtime", "x"), "invalid runtime"),
        ("{}", ("--tls",), "TLS needs"),
        ("{}", ("--tlsverify", "--tlscert", "c", "--tlskey", "k"), "tlscacert"),
        ("{}", ("--bip", "x"), "invalid bip"),
        ('{"publish-firewall": "yes"}', (), "invalid publish-firewall"),
        ("{}", ("--host-gateway-ip", "x"), "invalid host-gateway-ip"),
        ("{}", ("--cluster-store", "etcd://a:1"), "needs cluster-advertise"),
        ('{"cluster-store-opts": {"x": "1"}}', (), "need cluster-store"),
    ],
)
def test_refused(tmp_path: Path, text: str, arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        load(tmp_path, text, *arguments)


def test_a_missing_file_that_was_named_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot read configuration"):
        config.load(["--config-file", str(tmp_path / "none")])


def test_roots_have_names_of_their_own() -> None:
    assert instance_of(config.DEFAULT_ROOT) == "default"
    assert instance_of(Path("/a")) != instance_of(Path("/b"))
    assert instance_of(Path("/a")) == instance_of(Path("/a"))


def test_log_driver_of_the_daemon(tmp_path: Path) -> None:
    text = '{"log-driver": "json-file", "log-opts": {"max-file": 3, "compress": false}}'
    found = load(tmp_path, text).log_config
    assert found == LogConfig(type="json-file", config={"max-file": "3", "compress": "false"})
    found = load(tmp_path, "{}", "--log-driver", "gelf", "--log-opt", "gelf-address=udp://h:1").log_config
    assert found == LogConfig(type="gelf", config={"gelf-address": "udp://h:1"})
    assert load(tmp_path, "{}").log_config == LogConfig(type="local", config={})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--log-driver", "nope"], 'logging plugin nope: plugin "nope" not found'),
        (["--log-opt", "x=1"], "unknown log opt 'x' for local log driver"),
        (["--log-opt", "x"], "expected KEY=VALUE"),
        (["--log-driver", "gelf"], "gelf-address is a required parameter"),
    ],
)
def test_a_wrong_log_driver_is_found_at_start_up(tmp_path: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        load(tmp_path, "{}", *arguments)
