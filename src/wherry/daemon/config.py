"""The daemon's configuration: flags, and ``daemon.json`` with Docker's keys.

As with Docker, a key that is given both as a flag and in the file is an error. An unknown key in the file is
refused by name.
"""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wherry.daemon import clusters, defaultbridge, metricsconfig, refused, registries, values
from wherry.daemon.configfile import ConfigFile, ImagePolicy, ProxyKeys, read_file
from wherry.daemon.defaultbridge import DefaultBridge
from wherry.daemon.defaults import DEFAULT_CDI, DEFAULT_ROOT, DEFAULT_RUN, LEVELS
from wherry.daemon.flags import make_parser
from wherry.daemon.metricsconfig import MetricsConfig
from wherry.errors import InvalidArgument
from wherry.images.policy import ImageUpkeepPolicy
from wherry.images.versions import Keep
from wherry.logs import options as log_options
from wherry.model.container import LogConfig, Ulimit
from wherry.network.types import ClusterConfig
from wherry.registry.config import RegistryConfig
from wherry.state.events import KEEP, KEEP_DAYS


@dataclass(frozen=True)
class TlsConfig:
    """Paths of PEM files; ``verify`` asks clients for a certificate that ``ca`` signed."""

    verify: bool
    ca: Path | None
    cert: Path
    key: Path


@dataclass(frozen=True)
class Config:
    root: Path = DEFAULT_ROOT
    backup: str = ""
    run: Path = DEFAULT_RUN
    hosts: tuple[str, ...] = ()
    tls: TlsConfig | None = None
    insecure_tcp: bool = False
    log_level: str = "info"
    log_format: str = "text"
    log_config: LogConfig = field(default_factory=lambda: LogConfig(type="local"))
    log_chosen: bool = False
    metrics: MetricsConfig | None = None
    debug: bool = False
    group: str = ""
    storage_driver: str = ""
    default_runtime: str = ""
    runtimes: dict[str, str] = field(default_factory=dict)
    bridge: DefaultBridge = field(default_factory=DefaultBridge)
    network_options: dict[str, dict[str, str]] = field(default_factory=dict)
    address_pools: tuple[tuple[str, int], ...] = ()
    mtu: int = 1500
    icc: bool = True
    ip_forward: bool = True
    ip_masq: bool = True
    publish_ip: str = ""
    publish_firewall: str = "own"
    host_gateway_ip: str = ""
    cluster: ClusterConfig | None = None
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    cgroup_parent: str = "/wherry"
    default_shm_size: int = 64 << 20
    default_ipc_mode: str = "private"
    default_cgroupns_mode: str = ""
    default_ulimits: tuple[Ulimit, ...] = ()
    no_new_privileges: bool = False
    seccomp_profile: str = ""
    """Empty (the built-in one), ``unconfined``, or a file."""
    init: bool = False
    init_path: str = "/usr/bin/tini-static"
    shutdown_timeout: int = 15
    pidfile: Path | None = None
    cdi_directories: tuple[Path, ...] = DEFAULT_CDI
    plugin_directories: tuple[Path, ...] = ()
    plugin_timeout: int = 30
    cpu_rt_period: int = 0
    cpu_rt_runtime: int = 0
    event_limit: int = KEEP
    event_days: int = KEEP_DAYS
    keep_versions: Keep = field(default_factory=Keep)
    image_policy: ImageUpkeepPolicy = field(default_factory=ImageUpkeepPolicy)
    discard_blobs: bool = False
    registry: RegistryConfig = field(default_factory=RegistryConfig)


def load(arguments: Sequence[str]) -> tuple[Config, str]:
    """The configuration, and the mode: ``serve``, ``validate``, ``teardown``, ``rebuild`` or
    ``restore``.

    :raises InvalidArgument: an invalid value, or a key given twice; exits 2 on unknown flags.
    """
    options = make_parser().parse_args(arguments)
    file = read_file(options.config_file)
    merged = _merge(options, file)
    asked = [mode for mode in ("validate", "teardown", "rebuild", "restore") if getattr(options, mode)]
    if len(asked) > 1:
        raise InvalidArgument(f"--{asked[0]} and --{asked[1]} exclude each other")
    config = dataclasses.replace(_config(merged), backup=options.restore or "")
    return config, asked[0] if asked else "serve"


FILE_KEYS = {
    "root": "data_root",
    "run": "exec_root",
    "host": "hosts",
    "dns_opt": "dns_opts",
    "label": "labels",
    "log_opt": "log_opts",
    "metrics_label": "metrics_labels",
    "cdi_spec_dir": "cdi_spec_dirs",
    "plugin_dir": "plugin_dirs",
    "exec_opt": "exec_opts",
    "cluster_store_opt": "cluster_store_opts",
    "registry_mirror": "registry_mirrors",
    "insecure_registry": "insecure_registries",
}


def _merge(options: argparse.Namespace, file: ConfigFile) -> dict[str, Any]:
    """Flags combined with the file, under the file's names."""
    merged: dict[str, Any] = {name: getattr(file, name) for name in ConfigFile.__struct_fields__}
    merged["runtimes"] = {n: r.path for n, r in (file.runtimes or {}).items()}
    pools = file.default_address_pools
    merged["default_address_pools"] = None if pools is None else [(p.base, p.size) for p in pools]
    given = file.proxies or ProxyKeys()
    merged["proxies"] = {name.replace("_", "-"): getattr(given, name) for name in ProxyKeys.__struct_fields__}
    merged["default_ulimits"] = [
        Ulimit(name=name, soft=one.soft, hard=one.hard) for name, one in (file.default_ulimits or {}).items()
    ]
    flags = vars(options)
    for flag, value in flags.items():
        key = FILE_KEYS.get(flag, flag)
        if value is None or flag in ("config_file", "validate", "teardown", "rebuild", "restore"):
            continue
        if flag == "add_runtime":
            merged["runtimes"] |= dict(values.runtime(text) for text in value)
            continue
        if flag in ProxyKeys.__struct_fields__:
            merged["proxies"][flag.replace("_", "-")] = value
            continue
        if flag == "default_ulimit":
            key, value = "default_ulimits", [values.ulimit(text) for text in value]
        if flag == "default_network_opt":
            key, value = "default_network_opts", defaultbridge.said(value)
        if flag == "default_address_pool":
            key, value = "default_address_pools", [values.address_pool(text) for text in value]
        if getattr(file, key, None) is not None:
            shown = key.replace("_", "-")
            raise InvalidArgument(
                f"unable to configure the daemon with both flags and the file: {shown} is in both"
            )
        merged[key] = value
    return merged


def _config(m: dict[str, Any]) -> Config:
    defaults = Config()
    refused.check_fixed(m)
    _check_exec_opts(m["exec_opts"] or ())
    debug = bool(m["debug"])
    level = m["log_level"] or ("debug" if debug else "info")
    if level not in LEVELS:
        raise InvalidArgument(f"invalid log level: {level}")
    for base, size in m["default_address_pools"] or ():
        network = values.parsed(ipaddress.ip_network, base, "default address pool")
        if not network.prefixlen <= size <= network.max_prefixlen:
            raise InvalidArgument(f"invalid default address pool {base}: size {size} does not fit")
    for server in m["dns"] or ():
        values.parsed(ipaddress.ip_address, server, "dns")
    run = Path(m["exec_root"] or defaults.run)
    return Config(
        root=values.directory(m["data_root"] or defaults.root),
        run=values.directory(run),
        hosts=tuple(m["hosts"] or ()),
        tls=_tls(m),
        insecure_tcp=bool(m["insecure_tcp"]),
        log_level=level,
        log_format=m["log_format"] or "text",
        log_config=_log_config(m["log_driver"], m["log_opts"]),
        log_chosen=bool(m["log_driver"]),
        metrics=metricsconfig.configured(m),
        debug=debug,
        group=m["group"] or "",
        storage_driver=m["storage_driver"] or "",
        default_runtime=m["default_runtime"] or "",
        runtimes=m["runtimes"],
        bridge=(bridge := defaultbridge.configured(m)),
        network_options=defaultbridge.network_options(m["default_network_opts"]),
        address_pools=tuple(m["default_address_pools"] or ()),
        mtu=values.between(m["mtu"], 68, 65535, "mtu", defaults.mtu),
        icc=m["icc"] is not False,
        ip_forward=m["ip_forward"] is not False,
        ip_masq=m["ip_masq"] is not False,
        publish_ip=m["ip"] or "",
        publish_firewall=_publish_firewall(m["publish_firewall"]),
        host_gateway_ip=_gateway(m["host_gateway_ip"]) or bridge.host,
        cluster=clusters.configured(m["cluster_store"], m["cluster_advertise"], m["cluster_store_opts"]),
        dns=tuple(m["dns"] or ()),
        dns_search=tuple(m["dns_search"] or ()),
        dns_options=tuple(m["dns_opts"] or ()),
        labels=tuple(m["labels"] or ()),
        cgroup_parent=values.cgroup(m["cgroup_parent"] or defaults.cgroup_parent),
        default_shm_size=values.size(m["default_shm_size"], defaults.default_shm_size),
        default_ipc_mode=_one_of(m, "default_ipc_mode", ("private", "shareable")) or "private",
        default_cgroupns_mode=_one_of(m, "default_cgroupns_mode", ("host", "private")),
        default_ulimits=tuple(m["default_ulimits"] or ()),
        no_new_privileges=bool(m["no_new_privileges"]),
        seccomp_profile=values.profile(m["seccomp_profile"]),
        init=bool(m["init"]),
        init_path=m["init_path"] or defaults.init_path,
        shutdown_timeout=values.between(m["shutdown_timeout"], 0, 3600, "shutdown-timeout", 15),
        pidfile=values.directory(m["pidfile"]) if m["pidfile"] else None,
        plugin_directories=tuple(values.directory(d) for d in m["plugin_dirs"] or ()),
        plugin_timeout=values.between(m["plugin_timeout"], 1, 600, "plugin-timeout", 30),
        cdi_directories=_cdi(m["cdi_spec_dirs"]),
        keep_versions=Keep(
            values.between(m["image_keep_days"], 0, 36_500, "image-keep-days", Keep.days),
            values.between(m["image_keep_versions"], 0, 9999, "image-keep-versions", Keep.versions),
        ),
        event_limit=values.between(m["event_limit"], 256, 100_000_000, "event-limit", KEEP),
        image_policy=_policy(m["image_policy"] or ImagePolicy()),
        discard_blobs=bool(m["discard_blobs"]),
        event_days=values.between(m["event_days"], 0, 36_500, "event-days", KEEP_DAYS),
        registry=registries.configured(m),
        cpu_rt_period=values.between(m["cpu_rt_period"], 0, 1_000_000, "cpu-rt-period", 0),
        cpu_rt_runtime=values.between(m["cpu_rt_runtime"], 0, 1_000_000, "cpu-rt-runtime", 0),
    )


def _one_of(m: dict[str, Any], key: str, known: Sequence[str]) -> str:
    value: str = m[key] or ""
    if value and value not in known:
        shown = key.replace("_", "-")
        raise InvalidArgument(f"invalid {shown} {value!r}: it must be {' or '.join(known)}")
    return value


def _check_exec_opts(given: Sequence[str]) -> None:
    for text in given:
        if text != "native.cgroupdriver=cgroupfs":
            raise InvalidArgument(
                f"cannot use exec-opt {text!r}: native.cgroupdriver=cgroupfs is the only one"
            )


def _publish_firewall(given: str | None) -> str:
    if given not in (None, "own", "host"):
        raise InvalidArgument(f"invalid publish-firewall {given!r}: it must be own or host")
    return given or "own"


def _gateway(given: str | None) -> str:
    return str(values.parsed(ipaddress.ip_address, given, "host-gateway-ip")) if given else ""


def _cdi(given: list[str] | None) -> tuple[Path, ...]:
    """One empty name turns device injection off, as with Docker."""
    return DEFAULT_CDI if given is None else tuple(Path(d).absolute() for d in given if d)


def _log_config(driver: str | None, given: dict[str, str | int | bool] | list[str] | None) -> LogConfig:
    """The default log configuration of containers. Wrong options are reported at the start, not at every
    create.

    :raises InvalidArgument: invalid options.
    """
    if isinstance(given, list):
        pairs = [text.partition("=") for text in given]
        if wrong := [name for name, equals, _ in pairs if not equals]:
            raise InvalidArgument(f"invalid log option {wrong[0]!r}: expected KEY=VALUE")
        given = {name: value for name, _, value in pairs}
    texts = {k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in (given or {}).items()}
    config = LogConfig(type=driver or "local", config=texts)
    log_options.check(config)
    return config


def _policy(given: ImagePolicy) -> ImageUpkeepPolicy:
    for what in ("max_size", "low_water"):
        if values.size(getattr(given, what), 0) < 0:
            raise InvalidArgument(f"invalid image-policy: {what.replace('_', '-')} is less than nothing")
    return ImageUpkeepPolicy(
        every=values.between(given.every, 60, 30 * 24 * 3600, "image-policy every", ImageUpkeepPolicy.every),
        age_days=values.between(given.age_days, 0, 36_500, "image-policy age-days", 0),
        keep=values.between(given.keep, 0, 9999, "image-policy keep", 0),
        max_size=values.size(given.max_size, 0),
        low_water=values.size(given.low_water, 0),
    )


def _tls(m: dict[str, Any]) -> TlsConfig | None:
    verify = bool(m["tlsverify"])
    if not (verify or m["tls"]):
        return None
    if not m["tlscert"] or not m["tlskey"]:
        raise InvalidArgument("TLS needs --tlscert and --tlskey")
    if verify and not m["tlscacert"]:
        raise InvalidArgument("--tlsverify needs --tlscacert")
    ca = Path(m["tlscacert"]) if m["tlscacert"] else None
    return TlsConfig(verify, ca, Path(m["tlscert"]), Path(m["tlskey"]))
