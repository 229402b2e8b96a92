from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wherry.engine.containers import etcfiles
from wherry.engine.containers.bundle import environment
from wherry.engine.containers.joined import Joined
from wherry.engine.settings import Settings
from wherry.errors import InvalidArgument
from wherry.model.container import Container, ContainerConfig, HostConfig, MountPoint
from wherry.model.digest import of

OWN = Joined("/run/netns/x", hostname="box")
HOST = Joined("host", hostname="machine")


def record(host: HostConfig | None = None, config: ContainerConfig | None = None, **more: Any) -> Container:
    fields: dict[str, Any] = {
        "id": "a" * 64,
        "created": 1,
        "image_ref": "i",
        "image_id": of(b"i"),
        "chain_id": None,
        "platform": "linux/amd64",
        "path": "sh",
        "args": [],
        "config": config or ContainerConfig(),
        "host_config": host or HostConfig(),
        "networks": {},
        "mounts": [],
        "storage_driver": "vfs",
    }
    return Container(**(fields | more))


@pytest.fixture
def resolver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The host's files, as the tests say."""
    files: dict[str, str] = {}
    monkeypatch.setattr(etcfiles, "_read", lambda path: files.get(str(path), ""))
    return files


def test_hosts(resolver: dict[str, str]) -> None:
    host = HostConfig(extra_hosts=["far:192.0.2.1", "six:[::1]", "gate:host-gateway"])
    text = etcfiles.hosts_file(
        record(host, ContainerConfig(domainname="example")), OWN, ["10.0.0.2"], "10.0.0.1"
    )
    lines = text.splitlines()
    assert lines[0] == "127.0.0.1\tlocalhost"
    assert lines[-4:] == ["192.0.2.1\tfar", "::1\tsix", "10.0.0.1\tgate", "10.0.0.2\tbox.example box"]
    resolver["/etc/hosts"] = "127.0.0.1 machine\n"
    assert etcfiles.hosts_file(record(), HOST, (), "") == "127.0.0.1 machine\n"


@pytest.mark.parametrize("entry", ["far", ":1.2.3.4", "far:", "far:nowhere", "far:1.2.3.4 evil"])
def test_bad_extra_hosts(entry: str) -> None:
    with pytest.raises(InvalidArgument):
        etcfiles.hosts_file(record(HostConfig(extra_hosts=[entry])), OWN, (), "")


def test_resolver_settings(resolver: dict[str, str], tmp_path: Path) -> None:
    settings = Settings(tmp_path, tmp_path)
    resolver["/etc/resolv.conf"] = (
        "# c\nnameserver 192.0.2.1\nnameserver 127.0.0.53\nsearch a b\noptions ndots:2\n"
    )
    text = etcfiles.resolv_conf(record(), OWN, settings)
    assert text == "nameserver 192.0.2.1\nsearch a b\noptions ndots:2\n"
    assert "127.0.0.53" in etcfiles.resolv_conf(record(), HOST, settings)
    own = HostConfig(dns=["9.9.9.9"], dns_search=["."], dns_options=["rotate"])
    assert etcfiles.resolv_conf(record(own), OWN, settings) == "nameserver 9.9.9.9\noptions rotate\n"
    daemon = Settings(tmp_path, tmp_path, dns=("8.8.4.4",), dns_search=("d",))
    assert etcfiles.resolv_conf(record(), OWN, daemon).startswith("nameserver 8.8.4.4\nsearch d\n")


def test_loopback_servers_are_replaced(resolver: dict[str, str], tmp_path: Path) -> None:
    settings = Settings(tmp_path, tmp_path)
    resolver["/etc/resolv.conf"] = "nameserver 127.0.0.53\n"
    assert etcfiles.resolv_conf(record(), OWN, settings).startswith("nameserver 8.8.8.8\n")
    resolver["/run/systemd/resolve/resolv.conf"] = "nameserver 192.0.2.9\n"
    assert etcfiles.resolv_conf(record(), OWN, settings) == "nameserver 192.0.2.9\n"
    with pytest.raises(InvalidArgument):
        etcfiles.resolv_conf(record(HostConfig(dns=["x"])), OWN, settings)


def test_files_and_mounts(resolver: dict[str, str], tmp_path: Path) -> None:
    settings = Settings(tmp_path, tmp_path)
    mounted = record(mounts=[MountPoint(type="bind", source="/x", destination="/etc/hosts")])
    settings.container_directory(mounted.id).mkdir(parents=True)
    found = etcfiles.write_etc_files(mounted, OWN, settings)
    assert [m.destination for m in found] == ["/etc/resolv.conf", "/etc/hostname"]
    assert (settings.container_directory(mounted.id) / "hostname").read_text() == "box\n"
    etcfiles.add_addresses(mounted, OWN, settings, ["10.0.0.2", "fd00::2"], "")
    assert (
        (settings.container_directory(mounted.id) / "hosts")
        .read_text()
        .endswith("10.0.0.2\tbox\nfd00::2\tbox\n")
    )


def test_addresses_come_and_go(tmp_path: Path) -> None:
    settings = Settings(tmp_path, tmp_path)
    mine = record(config=ContainerConfig(hostname="box"))
    path = settings.container_directory(mine.id) / "hosts"
    path.parent.mkdir(parents=True)
    path.write_text("127.0.0.1\tlocalhost\n192.0.2.1\tby-hand\n10.0.0.2\tbox\n")
    etcfiles.change_addresses(mine, settings, added=["10.1.0.2"])
    etcfiles.change_addresses(mine, settings, removed=["10.0.0.2"])
    assert path.read_text() == "127.0.0.1\tlocalhost\n192.0.2.1\tby-hand\n10.1.0.2\tbox\n"


def test_where_names_are_answered(resolver: dict[str, str], tmp_path: Path) -> None:
    resolver["/etc/resolv.conf"] = "nameserver 192.0.2.9\nsearch example.org\n"
    settings = Settings(tmp_path, tmp_path)
    named = Joined("/run/netns/x", hostname="box", names=True)
    assert etcfiles.resolv_conf(record(), named, settings) == (
        "nameserver 127.0.0.11\nsearch example.org\noptions ndots:0\n"
    )
    own = HostConfig(dns=["9.9.9.9"], dns_options=["ndots:3", "rotate"])
    assert "options ndots:3 rotate\n" in etcfiles.resolv_conf(record(own), named, settings)
    assert etcfiles.servers_of(record(own), settings) == (("9.9.9.9",), True)
    assert etcfiles.servers_of(record(), settings) == ((), False)


def test_what_the_container_wrote_itself_stays(resolver: dict[str, str], tmp_path: Path) -> None:
    resolver["/etc/resolv.conf"] = "nameserver 192.0.2.9\n"
    settings = Settings(tmp_path, tmp_path)
    path = settings.container_directory(record().id) / "resolv.conf"
    path.parent.mkdir(parents=True)
    path.write_text("nameserver 192.0.2.9\n")
    resolver[str(path)] = "nameserver 192.0.2.9\n"
    etcfiles.answer_names(record(), settings)
    assert path.read_text() == "nameserver 127.0.0.11\noptions ndots:0\n"
    path.write_text("nameserver 1.1.1.1\n")
    resolver[str(path)] = "nameserver 1.1.1.1\n"
    etcfiles.answer_names(record(), settings)
    assert path.read_text() == "nameserver 1.1.1.1\n"


def test_environment() -> None:
    found = environment(
        record(config=ContainerConfig(env=["A=1", "PATH=/x", "BARE"], tty=True)), "/home", "box"
    )
    assert found == ["PATH=/x", "HOSTNAME=box", "TERM=xterm", "A=1", "HOME=/home"]
    own = environment(record(config=ContainerConfig(env=["HOME=/mine"])), "/home", "box")
    assert "HOME=/mine" in own and "HOME=/home" not in own
