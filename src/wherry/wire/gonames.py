"""The Go names of the types that our structs correspond to: the errors of Docker's decoder contain them."""

from __future__ import annotations

_PACKAGED = {
    "ContainerConfig": "container.Config",
    "HostConfig": "container.HostConfig",
    "Resources": "container.Resources",
    "ContainerUpdate": "container.UpdateConfig",
    "RestartPolicy": "container.RestartPolicy",
    "LogConfig": "container.LogConfig",
    "PortBinding": "network.PortBinding",
    "DeviceMapping": "container.DeviceMapping",
    "DeviceRequest": "container.DeviceRequest",
    "Ulimit": "units.Ulimit",
    "WeightDevice": "blkiodev.WeightDevice",
    "ThrottleDevice": "blkiodev.ThrottleDevice",
    "Healthcheck": "container.HealthConfig",
    "DriverConfig": "mount.Driver",
    "BindOptions": "mount.BindOptions",
    "VolumeOptions": "mount.VolumeOptions",
    "TmpfsOptions": "mount.TmpfsOptions",
    "ImageOptions": "mount.ImageOptions",
    "MountSpec": "mount.Mount",
    "EndpointIpamConfig": "network.EndpointIPAMConfig",
    "EndpointRequest": "network.EndpointSettings",
    "NetworkingConfig": "network.NetworkingConfig",
    "ExecConfig": "container.ExecOptions",
    "ExecStart": "container.ExecStartRequest",
    "IpamConfig": "network.IPAMConfig",
    "Ipam": "network.IPAM",
    "ConfigReference": "network.ConfigReference",
    "NetworkCreate": "network.CreateRequest",
    "Connect": "network.ConnectRequest",
    "Disconnect": "network.DisconnectRequest",
    "VolumeCreate": "volume.CreateOptions",
    "AuthConfig": "registry.AuthConfig",
    "CreateBody": "container.CreateRequest",
    "SecretSpec": "swarm.SecretSpec",
}

_FIELDS = {
    ("ContainerConfig", "stop_timeout"): "int",
    ("ContainerConfig", "exposed_ports"): "network.PortSet",
    ("Healthcheck", "interval"): "time.Duration",
    ("Healthcheck", "timeout"): "time.Duration",
    ("Healthcheck", "start_period"): "time.Duration",
    ("Healthcheck", "start_interval"): "time.Duration",
    ("Healthcheck", "retries"): "int",
    ("HostConfig", "network_mode"): "container.NetworkMode",
    ("HostConfig", "port_bindings"): "network.PortMap",
    ("HostConfig", "ipc_mode"): "container.IpcMode",
    ("HostConfig", "pid_mode"): "container.PidMode",
    ("HostConfig", "uts_mode"): "container.UTSMode",
    ("HostConfig", "userns_mode"): "container.UsernsMode",
    ("HostConfig", "cgroupns_mode"): "container.CgroupnsMode",
    ("HostConfig", "cgroup"): "container.CgroupSpec",
    ("HostConfig", "isolation"): "container.Isolation",
    ("HostConfig", "oom_score_adj"): "int",
    ("HostConfig", "console_size"): "[2]uint",
    ("ExecConfig", "console_size"): "[2]uint",
    ("ExecStart", "console_size"): "[2]uint",
    ("Resources", "blkio_weight"): "uint16",
    ("WeightDevice", "weight"): "uint16",
    ("ThrottleDevice", "rate"): "uint64",
    ("RestartPolicy", "name"): "container.RestartPolicyMode",
    ("RestartPolicy", "maximum_retry_count"): "int",
    ("DeviceRequest", "count"): "int",
    ("MountSpec", "type"): "mount.Type",
    ("MountSpec", "consistency"): "mount.Consistency",
    ("BindOptions", "propagation"): "mount.Propagation",
    ("TmpfsOptions", "mode"): "fs.FileMode",
    ("EndpointRequest", "gw_priority"): "int",
}

RANGES = {
    "int": (-(1 << 63), (1 << 63) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "time.Duration": (-(1 << 63), (1 << 63) - 1),
    "uint": (0, (1 << 64) - 1),
    "uint64": (0, (1 << 64) - 1),
    "uint16": (0, (1 << 16) - 1),
    "fs.FileMode": (0, (1 << 32) - 1),
}


def of_struct(kind: type) -> str:
    """For example ``container.HostConfig``; structs that Docker does not have keep their own name."""
    return _PACKAGED.get(kind.__name__.lstrip("_"), kind.__name__.lstrip("_"))


def of_field(kind: type, name: str) -> str:
    """The Go name of a field's type; empty if the type has no name of its own."""
    return _FIELDS.get((kind.__name__, name), "")
