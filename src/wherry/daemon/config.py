"""The daemon's configuration: flags, and ``daemon.json`` with Docker's keys.

A key given both as a flag and in the file is an error, as with Docker; a key the file has and the daemon
does not know is refused by name.
"""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from wherry import __version__
from wherry.daemon import clusters, registries
from wherry.errors import InvalidArgument
from wherry.images.policy import Policy
from wherry.images.versions import Keep
from wherry.logs import options as log_options
from wherry.model import typed
from wherry.model.container import LogConfig
from wherry.network.types import ClusterConfig
from wherry.registry.config import ATTEMPTS, DOWNLOADS, UPLOADS, RegistryConfig
from wherry.state.events import KEEP, KEEP_DAYS

DEFAULT_ROOT = Path("/var/lib/wherry")
DEFAULT_RUN = Path("/run/wherry")
DEFAULT_CONFIG = Path("/etc/wherry/daemon.json")
DEFAULT_CDI = (Path("/etc/cdi"), Path("/var/run/cdi"))
LEVELS = ("debug", "info", "warn", "error", "fatal")


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
    run: Path = DEFAULT_RUN
    hosts: tuple[str, ...] = ()
    tls: TlsConfig | None = None
    insecure_tcp: bool = False
    log_level: str = "info"
    log_format: str = "text"
    log_config: LogConfig = field(default_factory=lambda: LogConfig(type="local"))
    log_chosen: bool = False
    debug: bool = False
    group: str = ""
    storage_driver: str = ""
    default_runtime: str = ""
    runtimes: dict[str, str] = field(default_factory=dict)
    bip: str = ""
    address_pools: tuple[tuple[str, int], ...] = ()
    mtu: int = 1500
    icc: bool = True
    ip_forward: bool = True
    ip_masq: bool = True
    publish_ip: str = ""
    publish_firewall: str = "own"
    host_gateway_ip: str = ""
    fixed_cidr: str = ""
    cluster: ClusterConfig | None = None
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    cgroup_parent: str = "/wherry"
    default_shm_size: int = 64 << 20
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
    image_policy: Policy = field(default_factory=Policy)
    discard_blobs: bool = False
    registry: RegistryConfig = field(default_factory=RegistryConfig)


class _Pool(msgspec.Struct):
    base: str
    size: int


class _Runtime(msgspec.Struct):
    path: str


class _Proxies(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""


class _Policy(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    """Ours: which images go by themselves (``image-policy`` of the file). Sizes as ``20GB``."""

    every: int = Policy.every
    age_days: int = 0
    keep: int = 0
    max_size: str | int = 0
    low_water: str | int = 0


class _Rule(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    """Ours: for one registry, or names below one (``registries`` of the file)."""

    mirrors: list[str] = msgspec.field(default_factory=list)
    location: str = ""
    insecure: bool = False
    blocked: bool = False


class _File(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
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
    log_opts: dict[str, str | int | bool] | None = None
    debug: bool | None = None
    group: str | None = None
    storage_driver: str | None = None
    default_runtime: str | None = None
    runtimes: dict[str, _Runtime] | None = None
    bip: str | None = None
    default_address_pools: list[_Pool] | None = None
    mtu: int | None = None
    icc: bool | None = None
    ip_forward: bool | None = None
    ip_masq: bool | None = None
    ip: str | None = None
    publish_firewall: str | None = None
    host_gateway_ip: str | None = None
    fixed_cidr: str | None = None
    cluster_store: str | None = None
    cluster_advertise: str | None = None
    cluster_store_opts: dict[str, str] | None = None
    dns: list[str] | None = None
    dns_search: list[str] | None = None
    dns_opts: list[str] | None = None
    labels: list[str] | None = None
    cgroup_parent: str | None = None
    default_shm_size: str | int | None = None
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
    image_policy: _Policy | None = None
    discard_blobs: bool | None = None
    registry_mirrors: list[str] | None = None
    insecure_registries: list[str] | None = None
    blocked_registries: list[str] | None = None
    registries: dict[str, _Rule] | None = None
    registry_timeout: int | None = None
    registry_certs: str | None = None
    max_concurrent_downloads: int | None = None
    max_concurrent_uploads: int | None = None
    max_download_attempts: int | None = None
    proxies: _Proxies | None = None


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wherryd", description="The wherry daemon: the Engine API on a socket.", allow_abbrev=False
    )
    add = parser.add_argument
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
    add("--config-file", metavar="FILE", help=f"configuration (default {DEFAULT_CONFIG})")
    add("-l", "--log-level", choices=LEVELS, help="what to log (default info)")
    add("--log-format", choices=("text", "json"), help="how to log (default text)")
    add("--log-driver", metavar="NAME", help="log driver of containers (default local)")
    add("--log-opt", action="append", metavar="KEY=VALUE", help="option of containers' log driver")
    add("-D", "--debug", action="store_true", default=None, help="log everything")
    add("-G", "--group", metavar="NAME", help="group that owns the unix socket")
    add("-s", "--storage-driver", metavar="NAME", help="overlay or vfs (default: the first that works)")
    add("--default-runtime", metavar="NAME", help="OCI runtime (default crun, else runc)")
    add("--add-runtime", action="append", metavar="NAME=PATH", help="another OCI runtime")
    add("--bip", metavar="CIDR", help="address of the default bridge")
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
    add("--dns", action="append", metavar="ADDRESS", help="name server of containers")
    add("--dns-search", action="append", metavar="DOMAIN", help="search domain of containers")
    add("--dns-opt", action="append", metavar="OPTION", help="resolver option of containers")
    add("--label", action="append", metavar="KEY=VALUE", help="label of the daemon")
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
    add("--event-limit", type=int, metavar="N", help=f"events that are kept (default {KEEP})")
    add("--event-days", type=int, metavar="N", help=f"days that events are kept (default {KEEP_DAYS})")
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
    add("-p", "--pidfile", metavar="FILE", help="where to write the pid (default <run>/wherryd.pid)")
    add("--validate", action="store_true", help="check the configuration and exit")
    add("--teardown", action="store_true", help="remove bridge, firewall table and namespaces, and exit")
    add("-v", "--version", action="version", version=f"wherryd version {__version__}")
    return parser


def load(arguments: Sequence[str]) -> tuple[Config, str]:
    """The configuration, and what to do with it: ``serve``, ``validate`` or ``teardown``.

    :raises InvalidArgument: a value that makes no sense, or a key given twice; exits 2 on unknown flags.
    """
    options = make_parser().parse_args(arguments)
    file = _read_file(options.config_file)
    merged = _merge(options, file)
    mode = "validate" if options.validate else "teardown" if options.teardown else "serve"
    return _config(merged), mode


def _read_file(path: str | None) -> _File:
    file = Path(path) if path else DEFAULT_CONFIG
    if path is None and not file.exists():
        return _File()
    try:
        return typed.from_json(file.read_bytes(), _File)
    except OSError as e:
        raise InvalidArgument(f"cannot read configuration {file}: {e.strerror}") from e
    except (msgspec.ValidationError, msgspec.DecodeError) as e:
        raise InvalidArgument(f"cannot read configuration {file}: {e}") from e


_KEYS = {
    "root": "data_root",
    "run": "exec_root",
    "host": "hosts",
    "dns_opt": "dns_opts",
    "label": "labels",
    "log_opt": "log_opts",
    "cdi_spec_dir": "cdi_spec_dirs",
    "plugin_dir": "plugin_dirs",
    "cluster_store_opt": "cluster_store_opts",
    "registry_mirror": "registry_mirrors",
    "insecure_registry": "insecure_registries",
}


def _merge(options: argparse.Namespace, file: _File) -> dict[str, Any]:
    """Flags over the file, under the file's names."""
    merged: dict[str, Any] = {name: getattr(file, name) for name in _File.__struct_fields__}
    merged["runtimes"] = {n: r.path for n, r in (file.runtimes or {}).items()}
    pools = file.default_address_pools
    merged["default_address_pools"] = None if pools is None else [(p.base, p.size) for p in pools]
    given = file.proxies or _Proxies()
    merged["proxies"] = {name.replace("_", "-"): getattr(given, name) for name in _Proxies.__struct_fields__}
    flags = vars(options)
    for flag, value in flags.items():
        key = _KEYS.get(flag, flag)
        if value is None or flag in ("config_file", "validate", "teardown"):
            continue
        if flag == "add_runtime":
            merged["runtimes"] |= dict(_pair(text) for text in value)
            continue
        if flag in _Proxies.__struct_fields__:
            merged["proxies"][flag.replace("_", "-")] = value
            continue
        if flag == "default_address_pool":
            key, value = "default_address_pools", [_pool(text) for text in value]
        if getattr(file, key, None) is not None:
            shown = key.replace("_", "-")
            raise InvalidArgument(
                f"unable to configure the daemon with both flags and the file: {shown} is in both"
            )
        merged[key] = value
    return merged


def _pair(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise InvalidArgument(f"invalid runtime {text!r}: expected NAME=PATH")
    return name, path


def _pool(text: str) -> tuple[str, int]:
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    if set(fields) != {"base", "size"} or not fields["size"].isdigit():
        raise InvalidArgument(f"invalid address pool {text!r}: expected base=CIDR,size=N")
    return fields["base"], int(fields["size"])


def _config(m: dict[str, Any]) -> Config:
    defaults = Config()
    debug = bool(m["debug"])
    level = m["log_level"] or ("debug" if debug else "info")
    if level not in LEVELS:
        raise InvalidArgument(f"invalid log level: {level}")
    if m["bip"]:
        _check(ipaddress.ip_interface, m["bip"], "bip")
    for base, size in m["default_address_pools"] or ():
        network = _check(ipaddress.ip_network, base, "default address pool")
        if not network.prefixlen <= size <= network.max_prefixlen:
            raise InvalidArgument(f"invalid default address pool {base}: size {size} does not fit")
    for server in m["dns"] or ():
        _check(ipaddress.ip_address, server, "dns")
    run = Path(m["exec_root"] or defaults.run)
    return Config(
        root=_absolute(m["data_root"] or defaults.root),
        run=_absolute(run),
        hosts=tuple(m["hosts"] or ()),
        tls=_tls(m),
        insecure_tcp=bool(m["insecure_tcp"]),
        log_level=level,
        log_format=m["log_format"] or "text",
        log_config=_log_config(m["log_driver"], m["log_opts"]),
        log_chosen=bool(m["log_driver"]),
        debug=debug,
        group=m["group"] or "",
        storage_driver=m["storage_driver"] or "",
        default_runtime=m["default_runtime"] or "",
        runtimes=m["runtimes"],
        bip=m["bip"] or "",
        address_pools=tuple(m["default_address_pools"] or ()),
        mtu=_between(m["mtu"], 68, 65535, "mtu", defaults.mtu),
        icc=m["icc"] is not False,
        ip_forward=m["ip_forward"] is not False,
        ip_masq=m["ip_masq"] is not False,
        publish_ip=m["ip"] or "",
        publish_firewall=_publish_firewall(m["publish_firewall"]),
        host_gateway_ip=_gateway(m["host_gateway_ip"]),
        fixed_cidr=m["fixed_cidr"] or "",
        cluster=clusters.configured(m["cluster_store"], m["cluster_advertise"], m["cluster_store_opts"]),
        dns=tuple(m["dns"] or ()),
        dns_search=tuple(m["dns_search"] or ()),
        dns_options=tuple(m["dns_opts"] or ()),
        labels=tuple(m["labels"] or ()),
        cgroup_parent=m["cgroup_parent"] or defaults.cgroup_parent,
        default_shm_size=_bytes(m["default_shm_size"], defaults.default_shm_size),
        init_path=m["init_path"] or defaults.init_path,
        shutdown_timeout=_between(m["shutdown_timeout"], 0, 3600, "shutdown-timeout", 15),
        pidfile=_absolute(m["pidfile"]) if m["pidfile"] else None,
        plugin_directories=tuple(_absolute(d) for d in m["plugin_dirs"] or ()),
        plugin_timeout=_between(m["plugin_timeout"], 1, 600, "plugin-timeout", 30),
        cdi_directories=_cdi(m["cdi_spec_dirs"]),
        keep_versions=Keep(
            _between(m["image_keep_days"], 0, 36_500, "image-keep-days", Keep.days),
            _between(m["image_keep_versions"], 0, 9999, "image-keep-versions", Keep.versions),
        ),
        event_limit=_between(m["event_limit"], 256, 100_000_000, "event-limit", KEEP),
        image_policy=_policy(m["image_policy"] or _Policy()),
        discard_blobs=bool(m["discard_blobs"]),
        event_days=_between(m["event_days"], 0, 36_500, "event-days", KEEP_DAYS),
        registry=registries.configured(m),
        cpu_rt_period=_between(m["cpu_rt_period"], 0, 1_000_000, "cpu-rt-period", 0),
        cpu_rt_runtime=_between(m["cpu_rt_runtime"], 0, 1_000_000, "cpu-rt-runtime", 0),
    )


def _publish_firewall(given: str | None) -> str:
    if given not in (None, "own", "host"):
        raise InvalidArgument(f"invalid publish-firewall {given!r}: it must be own or host")
    return given or "own"


def _gateway(given: str | None) -> str:
    return str(_check(ipaddress.ip_address, given, "host-gateway-ip")) if given else ""


def _cdi(given: list[str] | None) -> tuple[Path, ...]:
    """One empty name turns device injection off, as with Docker."""
    return DEFAULT_CDI if given is None else tuple(Path(d).absolute() for d in given if d)


def _log_config(driver: str | None, given: dict[str, str | int | bool] | list[str] | None) -> LogConfig:
    """What containers get that ask for nothing else; wrong options are found now rather than at every create.

    :raises InvalidArgument: they make no sense.
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


def _absolute(path: str | Path) -> Path:
    resolved = Path(path).absolute()
    if ":" in str(resolved) or "," in str(resolved):
        # Both part the options of overlay mounts.
        raise InvalidArgument(f"invalid directory {resolved}: it must not contain ':' or ','")
    return resolved


def _check(parse: Any, text: str, what: str) -> Any:
    try:
        return parse(text)
    except ValueError as e:
        raise InvalidArgument(f"invalid {what}: {e}") from e


def _between(value: int | None, low: int, high: int, what: str, default: int) -> int:
    if value is None:
        return default
    if not low <= value <= high:
        raise InvalidArgument(f"invalid {what} {value}: it must be from {low} to {high}")
    return value


def _policy(given: _Policy) -> Policy:
    for what in ("max_size", "low_water"):
        if _bytes(getattr(given, what), 0) < 0:
            raise InvalidArgument(f"invalid image-policy: {what.replace('_', '-')} is less than nothing")
    return Policy(
        every=_between(given.every, 60, 30 * 24 * 3600, "image-policy every", Policy.every),
        age_days=_between(given.age_days, 0, 36_500, "image-policy age-days", 0),
        keep=_between(given.keep, 0, 9999, "image-policy keep", 0),
        max_size=_bytes(given.max_size, 0),
        low_water=_bytes(given.low_water, 0),
    )


def _bytes(value: str | int | None, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, int):
        return value
    units = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    text = value.lower().removesuffix("b").removesuffix("i")
    factor = units.get(text[-1:], 1)
    number = text[:-1] if text[-1:] in units else text
    if not number.isdigit():
        raise InvalidArgument(f"invalid size: {value!r}")
    return int(number) * factor


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
