"""``daemon.json``: Docker's keys that apply, and our own.
A key that is not listed here is refused by name."""

from __future__ import annotations

from pathlib import Path

import msgspec

from wherry.daemon import refused
from wherry.daemon.defaults import DEFAULT_CONFIG
from wherry.errors import InvalidArgument
from wherry.images.policy import ImageUpkeepPolicy
from wherry.model import typed


class AddressPool(msgspec.Struct):
    base: str
    size: int


class RuntimeEntry(msgspec.Struct):
    path: str


class UlimitEntry(msgspec.Struct, rename="pascal"):
    name: str = ""
    soft: int = 0
    hard: int = 0


class ProxyKeys(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""


class ImagePolicy(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    """Our own: which images are removed automatically (``image-policy`` of the file). Sizes as ``20GB``."""

    every: int = ImageUpkeepPolicy.every
    age_days: int = 0
    keep: int = 0
    max_size: str | int = 0
    low_water: str | int = 0


class RegistryRule(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    """Our own: for one registry, or for names below one (``registries`` of the file)."""

    mirrors: list[str] = msgspec.field(default_factory=list)
    location: str = ""
    insecure: bool = False
    blocked: bool = False


class ConfigFile(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    """``daemon.json``: the keys that apply, by Docker's names."""

    data_root: str | None = None
    exec_root: str | None = None
    hosts: list[str] | None = None
    tls: bool | None = None
    tlsverify: bool | None = None
    tlscacert: str | None = None
    tlscert: str | None = None
    tlskey: str | None = None
    insecure_tcp: bool | None = None
    log_level: str | None = None
    log_format: str | None = None
    log_driver: str | None = None
    metrics_addr: str | None = None
    metrics_labels: list[str] | None = None
    metrics_containers: str | None = None
    log_opts: dict[str, str | int | bool] | None = None
    debug: bool | None = None
    group: str | None = None
    storage_driver: str | None = None
    default_runtime: str | None = None
    runtimes: dict[str, RuntimeEntry] | None = None
    bridge: str | None = None
    bip: str | None = None
    bip6: str | None = None
    ipv6: bool | None = None
    default_address_pools: list[AddressPool] | None = None
    mtu: int | None = None
    icc: bool | None = None
    ip_forward: bool | None = None
    ip_masq: bool | None = None
    ip: str | None = None
    publish_firewall: str | None = None
    host_gateway_ip: str | None = None
    fixed_cidr: str | None = None
    fixed_cidr_v6: str | None = None
    default_gateway: str | None = None
    default_gateway_v6: str | None = None
    default_network_opts: dict[str, dict[str, str]] | None = None
    cluster_store: str | None = None
    cluster_advertise: str | None = None
    cluster_store_opts: dict[str, str] | None = None
    dns: list[str] | None = None
    dns_search: list[str] | None = None
    dns_opts: list[str] | None = None
    labels: list[str] | None = None
    cgroup_parent: str | None = None
    default_shm_size: str | int | None = None
    default_ipc_mode: str | None = None
    default_cgroupns_mode: str | None = None
    default_ulimits: dict[str, UlimitEntry] | None = None
    no_new_privileges: bool | None = None
    seccomp_profile: str | None = None
    init: bool | None = None
    exec_opts: list[str] | None = None
    iptables: bool | None = None
    ip6tables: bool | None = None
    userland_proxy: bool | None = None
    firewall_backend: str | None = None
    experimental: bool | None = None
    raw_logs: bool | None = None
    init_path: str | None = None
    shutdown_timeout: int | None = None
    pidfile: str | None = None
    live_restore: bool | None = None
    cdi_spec_dirs: list[str] | None = None
    plugin_dirs: list[str] | None = None
    plugin_timeout: int | None = None
    cpu_rt_period: int | None = None
    cpu_rt_runtime: int | None = None
    event_limit: int | None = None
    event_days: int | None = None
    image_keep_days: int | None = None
    image_keep_versions: int | None = None
    image_policy: ImagePolicy | None = None
    discard_blobs: bool | None = None
    registry_mirrors: list[str] | None = None
    insecure_registries: list[str] | None = None
    blocked_registries: list[str] | None = None
    registries: dict[str, RegistryRule] | None = None
    registry_timeout: int | None = None
    registry_certs: str | None = None
    max_concurrent_downloads: int | None = None
    max_concurrent_uploads: int | None = None
    max_download_attempts: int | None = None
    proxies: ProxyKeys | None = None


def read_file(path: str | None) -> ConfigFile:
    file = Path(path) if path else DEFAULT_CONFIG
    if path is None and not file.exists():
        return ConfigFile()
    try:
        data = file.read_bytes().strip()
        if not data:
            return ConfigFile()  # /dev/null is also a way to give no configuration
        keys = msgspec.json.decode(data)
        if isinstance(keys, dict):
            refused.check_keys(keys)
        return typed.from_json(data, ConfigFile)
    except OSError as e:
        raise InvalidArgument(f"cannot read configuration {file}: {e.strerror}") from e
    except (msgspec.ValidationError, msgspec.DecodeError) as e:
        raise InvalidArgument(f"cannot read configuration {file}: {e}") from e
