"""Translate requests from the API version that they were written for (the Engine API's version history).

Members that a version did not have yet are ignored, or refused if ignoring them would lose a protection.
Members that later versions dropped are translated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from wherry.errors import InvalidArgument
from wherry.model.container import (
    BindOptions,
    ContainerConfig,
    EndpointRequest,
    HostConfig,
    MountSpec,
    NetworkingConfig,
    PortBinding,
)
from wherry.model.exec import ExecConfig, ExecStart

Version = tuple[int, int]
_SYSCTLS = "com.docker.network.endpoint.sysctls"
_NOT_OWN = ("host", "none", "")


@dataclass(frozen=True)
class Create:
    """``POST /containers/create``, and what it warns of.

    :ivar readonly_recursive: whether read-only binds are read-only recursively by default.
    """

    config: ContainerConfig
    host: HostConfig
    networking: NetworkingConfig
    warnings: tuple[str, ...] = ()
    readonly_recursive: bool = True


def create(asked: Create, version: Version) -> Create:
    """:raises InvalidArgument: a member that this version does not have, in Docker's words."""
    config, host = asked.config, asked.host
    endpoints = {name: one or EndpointRequest() for name, one in (_endpoints(asked)).items()}
    mode = "bridge" if host.network_mode in ("", "default") else host.network_mode
    if mode == "bridge" and "default" in endpoints:
        endpoints["bridge"] = endpoints.pop("default")
    host = replace(host, network_mode=mode, mounts=_mounts(host, version))
    if version < (1, 42):
        host = replace(host, console_size=(0, 0))
    if version < (1, 43):
        host = replace(host, annotations=None)
    if version < (1, 44):
        if config.healthcheck is not None:
            config = replace(config, healthcheck=replace(config.healthcheck, start_interval=0))
        if len(endpoints) > 1:
            names = ", ".join(endpoints)
            raise InvalidArgument(f"Container cannot be created with multiple network endpoints: {names}")
    if version < (1, 48):
        endpoints = {name: replace(one, gw_priority=0) for name, one in endpoints.items()}
    warnings: list[str] = [*asked.warnings, *_volume_driver(host, version)]
    config = _mac_address(config, host, endpoints, version, warnings)
    host = _interface_sysctls(host, endpoints, version, warnings)
    host = _empty_bindings(host, version, warnings)
    return Create(
        config, host, NetworkingConfig(endpoints_config=dict(endpoints)), tuple(warnings), version >= (1, 44)
    )


def exec_create(config: ExecConfig, version: Version) -> ExecConfig:
    return config if version >= (1, 42) else replace(config, console_size=None)


def exec_start(options: ExecStart, version: Version) -> ExecStart:
    """Ignore the console size without a terminal."""
    return options if version >= (1, 42) and options.tty else replace(options, console_size=None)


def _endpoints(asked: Create) -> Mapping[str, EndpointRequest | None]:
    return asked.networking.endpoints_config or {}


def _mounts(host: HostConfig, version: Version) -> list[MountSpec] | None:
    return None if host.mounts is None else [_mount(spec, version) for spec in host.mounts]


def _mount(spec: MountSpec, version: Version) -> MountSpec:
    options = (
        ("VolumeOptions", "volume", spec.volume_options),
        ("BindOptions", "bind", spec.bind_options),
        ("TmpfsOptions", "tmpfs", spec.tmpfs_options),
    )
    if version >= (1, 42):
        for name, kind, said in options:
            if said is not None and spec.type != kind:
                raise InvalidArgument(f'{name} must not be specified on mount type "{spec.type}"')
    else:
        spec = replace(
            spec,
            volume_options=spec.volume_options if spec.type == "volume" else None,
            tmpfs_options=spec.tmpfs_options if spec.type == "tmpfs" else None,
        )
        if spec.bind_options is not None:
            spec = replace(spec, bind_options=replace(spec.bind_options, create_mountpoint=False))
    if version < (1, 44) and spec.type == "bind":
        bind = spec.bind_options or BindOptions()
        if bind.read_only_force_recursive:
            raise InvalidArgument("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
    if version < (1, 45) and spec.volume_options is not None and spec.volume_options.subpath:
        raise InvalidArgument("VolumeOptions.Subpath needs API v1.45 or newer")
    if version < (1, 48) and spec.type == "image":
        raise InvalidArgument('Mount type "Image" needs API v1.48 or newer')
    return spec


def _volume_driver(host: HostConfig, version: Version) -> list[str]:
    if not host.volume_driver or version < (1, 48):
        return []
    for spec in host.mounts or ():
        options = spec.volume_options
        named = options is not None and options.driver_config is not None and options.driver_config.name
        if spec.type == "volume" and not named:
            return [
                "WARNING: the container-wide volume-driver configuration is ignored for volumes specified "
                "via 'mount'. Use '--mount type=volume,volume-driver=...' instead"
            ]
    return []


def _has_own_network(host: HostConfig) -> bool:
    return host.network_mode not in _NOT_OWN and not host.network_mode.startswith("container:")


def _mac_address(
    config: ContainerConfig,
    host: HostConfig,
    endpoints: dict[str, EndpointRequest],
    version: Version,
    warnings: list[str],
) -> ContainerConfig:
    """Move the container's ``MacAddress`` (older versions) to the endpoint of its main network."""
    address = config.mac_address
    if version >= (1, 52):
        return replace(config, mac_address="")
    if version < (1, 44) and not address:
        for name, one in endpoints.items():
            endpoints[name] = replace(one, mac_address="")
    if not address:
        return config
    if version < (1, 44) and not _has_own_network(host):
        raise InvalidArgument("conflicting options: mac-address and the network mode")
    if _has_own_network(host):
        main = endpoints.get(host.network_mode, EndpointRequest())
        if version >= (1, 44) and main.mac_address not in ("", address):
            raise InvalidArgument(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main "
                "network, or be left empty"
            )
        endpoints[host.network_mode] = replace(main, mac_address=address)
    if version >= (1, 44):
        warnings.append(
            "The container-wide MacAddress field is now deprecated. "
            "It should be specified in EndpointsConfig instead."
        )
    return replace(config, mac_address="")


def _interface_sysctls(
    host: HostConfig, endpoints: dict[str, EndpointRequest], version: Version, warnings: list[str]
) -> HostConfig:
    """Move the sysctls ``net.*.*.eth0.*`` (older versions) to an option of the main network's endpoint."""
    if host.network_mode == "host" or host.network_mode.startswith("container:"):
        return host
    moved: dict[str, str] = {}
    for name, value in (host.sysctls or {}).items():
        parts = name.split(".", 4)
        if len(parts) < 5 or parts[0] != "net" or not parts[3].startswith("eth"):
            continue
        if version >= (1, 48):
            raise InvalidArgument(
                f'interface specific sysctl setting "{name}" must be supplied using driver option '
                f"'{_SYSCTLS}'"
            )
        if parts[3] != "eth0":
            raise InvalidArgument(
                f"unable to determine network endpoint for sysctl {name}, use driver option '{_SYSCTLS}' "
                "to set per-interface sysctls"
            )
        moved[name] = f"net.{parts[1]}.{parts[2]}.IFNAME.{parts[4]}={value}"
    if not moved:
        return host
    option = ",".join(moved.values())
    warnings.append(f'Migrated sysctl "{",".join(moved)}" to DriverOpts{{"{_SYSCTLS}":"{option}"}}.')
    main = endpoints.get(host.network_mode, EndpointRequest())
    before = (main.driver_opts or {}).get(_SYSCTLS)
    options = {**(main.driver_opts or {}), _SYSCTLS: f"{option},{before}" if before else option}
    endpoints[host.network_mode] = replace(main, driver_opts=options)
    return replace(host, sysctls={k: v for k, v in (host.sysctls or {}).items() if k not in moved})


def _empty_bindings(host: HostConfig, version: Version, warnings: list[str]) -> HostConfig:
    """A port without bindings is published on any port before 1.53, and not at all from then on."""
    empty = [port for port, found in (host.port_bindings or {}).items() if not found]
    if not empty:
        return host
    if version == (1, 52):
        warnings.append(
            f"Following container port(s) have an empty list of port-bindings: {', '.join(empty)}. "
            "Starting with API 1.53, such bindings will be discarded."
        )
    bindings = {port: found for port, found in (host.port_bindings or {}).items() if found}
    if version < (1, 53):
        bindings = {port: found or [PortBinding()] for port, found in (host.port_bindings or {}).items()}
    return replace(host, port_bindings=bindings)
