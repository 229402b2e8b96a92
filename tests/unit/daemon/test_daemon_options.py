"""dockerd's flags and keys of daemon.json: each one is known, or refused by its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wherry.daemon import config, refused
from wherry.daemon.flags import make_parser
from wherry.errors import InvalidArgument
from wherry.model.container import Ulimit

DOCKERD = """
    add-runtime allow-direct-routing authorization-plugin bip bip6 bridge bridge-accept-fwmark
    cdi-spec-dir cgroup-parent config-file containerd containerd-namespace
    containerd-plugins-namespace cpu-rt-period cpu-rt-runtime cri-containerd data-root debug
    default-address-pool default-cgroupns-mode default-gateway default-gateway-v6 default-ipc-mode
    default-network-opt default-runtime default-shm-size default-ulimit dns dns-opt dns-search
    exec-opt exec-root experimental feature firewall-backend fixed-cidr fixed-cidr-v6 group help
    host host-gateway-ip http-proxy https-proxy icc init init-path insecure-registry ip ip-forward
    ip-forward-no-drop ip-masq ip6tables iptables ipv6 label live-restore log-driver log-format
    log-level log-opt max-concurrent-downloads max-concurrent-uploads max-download-attempts
    metrics-addr mtu network-control-plane-mtu no-new-privileges no-proxy node-generic-resource
    pidfile raw-logs registry-mirror rootless seccomp-profile selinux-enabled shutdown-timeout
    storage-driver storage-opt swarm-default-advertise-addr tls tlscacert tlscert tlskey tlsverify
    userland-proxy userland-proxy-path userns-remap validate version
""".split()


def load(tmp_path: Path, text: str, *arguments: str) -> config.Config:
    file = tmp_path / "daemon.json"
    file.write_text(text)
    return config.load(["--config-file", str(file), *arguments])[0]


def refusal(tmp_path: Path, text: str, *arguments: str) -> str:
    with pytest.raises(InvalidArgument) as caught:
        load(tmp_path, text, *arguments)
    return caught.value.message


def test_every_flag_of_dockerd_is_known() -> None:
    known = {o.lstrip("-") for action in make_parser()._actions for o in action.option_strings}
    assert set(DOCKERD) - known == set()


@pytest.mark.parametrize("name", sorted(refused.FLAGS))
def test_what_is_refused_is_named(tmp_path: Path, name: str) -> None:
    assert refusal(tmp_path, "{}", f"--{name}=x").startswith(f"cannot use --{name}: ")
    key = {"authorization-plugin": "authorization-plugins", "storage-opt": "storage-opts"}.get(name, name)
    if key not in ("feature", "node-generic-resource"):
        assert refusal(tmp_path, f'{{"{key}": "x"}}').startswith(f"cannot use {key}: ")
    assert "-" not in refusal(tmp_path, "{}", f"--{name}=x").partition(": ")[2][:1]


def test_short_and_bare_forms_are_refused_too(tmp_path: Path) -> None:
    assert "--rootless" in refusal(tmp_path, "{}", "--rootless")
    assert "features" in refusal(tmp_path, '{"features": {"containerd-snapshotter": true}}')


@pytest.mark.parametrize(
    ("flag", "refused_value"),
    [
        ("--live-restore", "=false"), ("--userland-proxy=false", "=true"), ("--iptables", "=false"),
        ("--ip6tables=true", "=false"), ("--experimental=false", ""), ("--raw-logs", "=false"),
        ("--firewall-backend=nftables", "=iptables"),
    ],
)  # fmt: skip
def test_what_is_one_way_only(tmp_path: Path, flag: str, refused_value: str) -> None:
    load(tmp_path, "{}", flag)
    name = re.sub("=.*", "", flag)
    assert refusal(tmp_path, "{}", name + refused_value).startswith(f"cannot use {name.lstrip('-')}=")


def test_defaults_of_containers(tmp_path: Path) -> None:
    text = (
        '{"default-ipc-mode": "shareable", "default-cgroupns-mode": "host", "init": true, "exec-opts": '
        '["native.cgroupdriver=cgroupfs"], '
        '"default-ulimits": {"nofile": {"Name": "nofile", "Soft": 5, "Hard": 6}}}'
    )
    loaded = load(tmp_path, text)
    assert (loaded.default_ipc_mode, loaded.default_cgroupns_mode, loaded.init) == ("shareable", "host", True)
    assert loaded.default_ulimits == (Ulimit(name="nofile", soft=5, hard=6),)
    flags = "--default-shm-size=32m --init-path /x --icc=false --ip-masq=0 --default-ulimit nofile=7:8 --init"
    loaded = load(tmp_path, "{}", *flags.split())
    assert (loaded.default_shm_size, loaded.init_path, loaded.icc, loaded.ip_masq) == (
        32 << 20,
        "/x",
        False,
        False,
    )
    assert loaded.default_ulimits == (Ulimit(name="nofile", soft=7, hard=8),) and loaded.init
    assert "default-ipc-mode" in refusal(tmp_path, '{"default-ipc-mode": "host"}')
    assert "exec-opt" in refusal(tmp_path, "{}", "--exec-opt", "native.cgroupdriver=systemd")
    assert "invalid ulimit argument: nofile" in refusal(tmp_path, "{}", "--default-ulimit", "nofile")
    assert "icc is in both" in refusal(tmp_path, '{"icc": true}', "--icc=false")


@pytest.mark.parametrize("text", ["", " \n"])
def test_a_file_that_says_nothing(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text) == load(tmp_path, "{}")
    assert config.load(["--config-file", "/dev/null"])[0] == load(tmp_path, "{}")
