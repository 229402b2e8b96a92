"""Requests in the API version they were written for, along the Engine API's version history."""

from __future__ import annotations

import pytest

from wherry.errors import InvalidArgument
from wherry.model.container import (
    BindOptions,
    ContainerConfig,
    DriverConfig,
    EndpointRequest,
    HostConfig,
    MountSpec,
    NetworkingConfig,
    PortBinding,
    TmpfsOptions,
    VolumeOptions,
)
from wherry.model.exec import ExecConfig, ExecStart
from wherry.model.oci import Healthcheck
from wherry.wire import compat

NEWEST = (1, 56)


def create(
    version: tuple[int, int],
    host: HostConfig | None = None,
    config: ContainerConfig | None = None,
    **endpoints: EndpointRequest,
) -> compat.Create:
    asked = compat.Create(
        config or ContainerConfig(), host or HostConfig(), NetworkingConfig(endpoints_config=dict(endpoints))
    )
    return compat.create(asked, version)


def refusal(version: tuple[int, int], *arguments: object, **endpoints: EndpointRequest) -> str:
    with pytest.raises(InvalidArgument) as caught:
        create(version, *arguments, **endpoints)  # type: ignore[arg-type]
    return caught.value.message


def mounts(*specs: MountSpec) -> HostConfig:
    return HostConfig(mounts=list(specs))


def test_members_that_came_later_are_ignored() -> None:
    host = HostConfig(console_size=(5, 6), annotations={"a": "b"})
    config = ContainerConfig(healthcheck=Healthcheck(start_interval=5, interval=7))
    old = create((1, 41), host, config)
    assert (old.host.console_size, old.host.annotations) == ((0, 0), None)
    assert old.config.healthcheck == Healthcheck(interval=7)
    assert create((1, 42), host).host.console_size == (5, 6)
    assert create((1, 42), host).host.annotations is None
    assert create((1, 43), host).host.annotations == {"a": "b"}
    assert create((1, 44), config=config).config.healthcheck == config.healthcheck
    assert (old.readonly_recursive, create((1, 44)).readonly_recursive) == (False, True)
    priority = EndpointRequest(gw_priority=3)
    assert create((1, 47), a=priority).networking.endpoints_config == {"a": EndpointRequest()}
    assert create((1, 48), a=priority).networking.endpoints_config == {"a": priority}


def test_options_of_another_kind_of_mount() -> None:
    wrong = MountSpec(type="bind", source="/a", target="/b", volume_options=VolumeOptions())
    assert refusal((1, 42), mounts(wrong)) == 'VolumeOptions must not be specified on mount type "bind"'
    (kept,) = create((1, 41), mounts(wrong)).host.mounts or ()
    assert kept.volume_options is None
    wrong = MountSpec(type="volume", target="/b", bind_options=BindOptions())
    assert refusal(NEWEST, mounts(wrong)) == 'BindOptions must not be specified on mount type "volume"'
    wrong = MountSpec(type="volume", target="/b", tmpfs_options=TmpfsOptions())
    assert refusal(NEWEST, mounts(wrong)) == 'TmpfsOptions must not be specified on mount type "volume"'


def test_options_of_mounts() -> None:
    bind = MountSpec(type="bind", bind_options=BindOptions(create_mountpoint=True))
    (kept,) = create((1, 41), mounts(bind)).host.mounts or ()
    assert kept.bind_options == BindOptions()
    assert create((1, 42), mounts(bind)).host.mounts == [bind]
    forced = MountSpec(type="bind", bind_options=BindOptions(read_only_force_recursive=True))
    assert refusal((1, 43), mounts(forced)) == "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer"
    subpath = MountSpec(type="volume", volume_options=VolumeOptions(subpath="a"))
    assert refusal((1, 44), mounts(subpath)) == "VolumeOptions.Subpath needs API v1.45 or newer"
    image = MountSpec(type="image", source="busybox")
    assert refusal((1, 47), mounts(image)) == 'Mount type "Image" needs API v1.48 or newer'
    for version, spec in (((1, 44), forced), ((1, 45), subpath), ((1, 48), image)):
        assert create(version, mounts(spec)).host.mounts == [spec]


def test_several_networks() -> None:
    two = {"a": EndpointRequest(), "b": EndpointRequest()}
    assert refusal((1, 43), **two) == "Container cannot be created with multiple network endpoints: a, b"
    assert set(create((1, 44), **two).networking.endpoints_config or ()) == {"a", "b"}


def test_default_is_the_bridge() -> None:
    made = create(NEWEST, HostConfig(network_mode="default"), default=EndpointRequest(gw_priority=1))
    assert made.host.network_mode == "bridge"
    assert made.networking.endpoints_config == {"bridge": EndpointRequest(gw_priority=1)}


def test_mac_address() -> None:
    config, own = ContainerConfig(mac_address="02:00:00:00:00:01"), HostConfig(network_mode="own")
    for version in ((1, 43), (1, 44), (1, 51)):
        made = create(version, own, config)
        assert made.config.mac_address == ""
        assert (made.networking.endpoints_config or {})["own"] == EndpointRequest(
            mac_address=config.mac_address
        )
        assert bool(made.warnings) == (version >= (1, 44))
    assert create((1, 52), own, config).networking.endpoints_config == {}
    assert "network mode" in refusal((1, 43), HostConfig(network_mode="host"), config)
    other = EndpointRequest(mac_address="02:00:00:00:00:02")
    assert "must match" in refusal((1, 44), own, config, own=other)
    assert create((1, 43), own, own=other).networking.endpoints_config == {"own": EndpointRequest()}


def test_sysctls_of_interfaces() -> None:
    name = "net.ipv4.conf.eth0.log_martians"
    host = HostConfig(network_mode="own", sysctls={name: "1", "net.ipv4.ip_forward": "1"})
    option = "com.docker.network.endpoint.sysctls"
    old = create((1, 47), host, own=EndpointRequest(driver_opts={option: "x=y"}))
    assert old.host.sysctls == {"net.ipv4.ip_forward": "1"}
    wanted = {option: "net.ipv4.conf.IFNAME.log_martians=1,x=y"}
    assert (old.networking.endpoints_config or {})["own"].driver_opts == wanted
    assert old.warnings == (
        f'Migrated sysctl "{name}" to DriverOpts{{"{option}":"net.ipv4.conf.IFNAME.log_martians=1"}}.',
    )
    assert refusal((1, 48), host).startswith(f'interface specific sysctl setting "{name}" must be supplied')
    second = HostConfig(sysctls={"net.ipv4.conf.eth1.log_martians": "1"})
    assert refusal((1, 47), second).startswith("unable to determine network endpoint for sysctl")
    assert create(NEWEST, HostConfig(network_mode="host", sysctls={name: "1"})).host.sysctls == {name: "1"}


@pytest.mark.parametrize("empty", [None, []])
def test_ports_without_bindings(empty: list[PortBinding] | None) -> None:
    bound = [PortBinding(host_port="1")]
    host = HostConfig(port_bindings={"80/tcp": empty, "81/tcp": bound})
    for version in ((1, 51), (1, 52)):
        made = create(version, host)
        assert made.host.port_bindings == {"80/tcp": [PortBinding()], "81/tcp": bound}
        assert bool(made.warnings) == (version == (1, 52))
    assert create((1, 53), host).host.port_bindings == {"81/tcp": bound}


def test_volume_driver_beside_mounts() -> None:
    plain = MountSpec(type="volume", source="v")
    host = HostConfig(volume_driver="x", mounts=[plain])
    assert create((1, 47), host).warnings == ()
    assert "container-wide volume-driver" in create((1, 48), host).warnings[0]
    chosen = MountSpec(type="volume", volume_options=VolumeOptions(driver_config=DriverConfig(name="y")))
    assert create((1, 48), HostConfig(volume_driver="x", mounts=[chosen])).warnings == ()


def test_terminal_sizes_of_execs() -> None:
    config = ExecConfig(console_size=(1, 2), tty=True)
    assert compat.exec_create(config, (1, 41)).console_size is None
    assert compat.exec_create(config, (1, 42)) == config
    for tty, version, wanted in ((True, (1, 42), (1, 2)), (True, (1, 41), None), (False, (1, 42), None)):
        assert compat.exec_start(ExecStart(tty=tty, console_size=(1, 2)), version).console_size == wanted
