"""A service as the body of ``POST /containers/create`` (Engine API, ContainerCreateRequest)."""

from __future__ import annotations

from wherry.compose import attachment, labels
from wherry.compose.places import ComposeError
from wherry.compose.project import image_of
from wherry.compose.scalars import duration, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wherry.compose.attachment import Resolve
    from wherry.compose.mounts import ServiceMounts
    from wherry.compose.project import Project

    Object = dict[str, Any]


class OwnParts:
    """What one container has that its service's definition does not say.

    ``labels`` are those that find it again; ``mode`` is the network mode, ``endpoints`` its networks by name.
    """

    def __init__(
        self, *, labels: Mapping[str, str], mounts: ServiceMounts, mode: str, endpoints: Object
    ) -> None:
        self.labels, self.mounts, self.mode, self.endpoints = labels, mounts, mode, endpoints


def container(
    project: Project,
    name: str,
    service: Any,
    own: OwnParts,
    *,
    resolve: Resolve,
    attach_stdin: bool = False,
    auto_remove: bool = False,
) -> Object:
    """:param service: with its environment resolved.

    :raises ComposeError: a key for swarm or Windows, which this daemon does not support.
    """
    _refuse(name, service)
    exposed, bindings = attachment.ports_of(service)
    stdin = bool(service.get("stdin_open"))
    body: Object = {
        "Hostname": service.get("hostname") or "",
        "Domainname": service.get("domainname") or "",
        "User": service.get("user") or "",
        "AttachStdin": attach_stdin,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": bool(service.get("tty")),
        "OpenStdin": stdin,
        "StdinOnce": attach_stdin and stdin,
        "ExposedPorts": exposed,
        "Env": environment(service.get("environment") or {}),
        "Cmd": _command(service, "command"),
        "Entrypoint": _command(service, "entrypoint"),
        "Image": image_of(project, name),
        "WorkingDir": service.get("working_dir") or "",
        "Labels": {**(service.get("labels") or {}), **own.labels},
        "StopSignal": service.get("stop_signal") or "",
        "HostConfig": _host(project, service, own.mounts, resolve)
        | {"PortBindings": bindings, "NetworkMode": own.mode, "AutoRemove": auto_remove},
        "NetworkingConfig": {"EndpointsConfig": own.endpoints},
    }
    if service.get("stop_grace_period"):
        body["StopTimeout"] = -(-duration(service["stop_grace_period"]) // 10**9)
    if service.get("healthcheck"):
        body["Healthcheck"] = healthcheck(service["healthcheck"])
    return body


def _refuse(name: str, service: Any) -> None:
    for key in ("cpu_count", "cpu_percent", "credential_spec"):
        if service.get(key):
            raise ComposeError(f"services.{name}.{key} is only supported on Windows")
    if service.get("use_api_socket"):
        raise ComposeError(
            f"services.{name}.use_api_socket is not supported: mount the daemon's socket as a volume instead"
        )
    for key in ("provider", "models"):
        if service.get(key):
            raise ComposeError(
                f"services.{name}.{key} is not supported: wherry runs no {key} besides containers"
            )


def _command(service: Any, key: str) -> list[str] | None:
    value = service.get(key)
    return None if value is None else list(value)


def environment(words: Any) -> list[str]:
    return [name if words[name] is None else f"{name}={words[name]}" for name in sorted(words)]


def healthcheck(check: Any) -> Object:
    if check.get("disable"):
        return {"Test": ["NONE"]}
    members = {"interval": "Interval", "timeout": "Timeout", "start_period": "StartPeriod"}
    members["start_interval"] = "StartInterval"
    made: Object = {member: duration(check[key]) for key, member in members.items() if key in check}
    if "test" in check:
        made["Test"] = list(check["test"])
    if "retries" in check:
        made["Retries"] = check["retries"]
    return made


def _host(project: Project, service: Any, mounts: ServiceMounts, resolve: Resolve) -> Object:
    logging = service.get("logging") or {}
    host: Object = {
        "Binds": mounts.binds or None,
        "Mounts": mounts.mounts or None,
        **({"Secrets": mounts.secrets} if mounts.secrets else {}),
        "Annotations": dict(service.get("annotations") or {}) or None,
        "CapAdd": list(service.get("cap_add") or ()) or None,
        "CapDrop": list(service.get("cap_drop") or ()) or None,
        "GroupAdd": list(service.get("group_add") or ()) or None,
        "Dns": list(service.get("dns") or ()),
        "DnsOptions": list(service.get("dns_opt") or ()),
        "DnsSearch": list(service.get("dns_search") or ()),
        "ExtraHosts": _hosts(service.get("extra_hosts") or {}) or None,
        "Privileged": bool(service.get("privileged")),
        "ReadonlyRootfs": bool(service.get("read_only")),
        "RestartPolicy": restart_policy(service),
        "LogConfig": {"Type": logging.get("driver") or "", "Config": _strings(logging.get("options") or {})},
        "SecurityOpt": [_security(project, one) for one in service.get("security_opt") or ()] or None,
        "StorageOpt": _strings(service.get("storage_opt") or {}) or None,
        "Sysctls": dict(service.get("sysctls") or {}) or None,
        "Tmpfs": _tmpfs(service.get("tmpfs") or ()) or None,
        "VolumesFrom": [_from(one, resolve) for one in service.get("volumes_from") or ()] or None,
        "ShmSize": size(service.get("shm_size") or 0),
        "Runtime": service.get("runtime") or "",
        "Isolation": service.get("isolation") or "",
        "IpcMode": attachment.namespace(service.get("ipc") or "", resolve),
        "PidMode": attachment.namespace(service.get("pid") or "", resolve),
        "UTSMode": attachment.namespace(service.get("uts") or "", resolve),
        "UsernsMode": service.get("userns_mode") or "",
        "CgroupnsMode": service.get("cgroup") or "",
    }
    if "init" in service:
        host["Init"] = service["init"]
    return host | _resources(service)


def _strings(options: Any) -> dict[str, str]:
    return {key: "" if value is None else str(value) for key, value in options.items()}


def _hosts(hosts: Any) -> list[str]:
    return [f"{name}:{address}" for name in hosts for address in hosts[name]]


def _tmpfs(texts: Any) -> dict[str, str]:
    return dict(text.partition(":")[::2] for text in texts)


def _security(project: Project, option: str) -> str:
    """``seccomp=FILE`` is replaced by the file's content, because the daemon may not be able to read the
    file."""
    name, separator, value = option.partition("=" if "=" in option else ":")
    if (
        name == "seccomp"
        and value not in ("unconfined", "builtin", "")
        and not value.lstrip().startswith("{")
    ):
        from wherry.client.files import read_file

        try:
            return f"seccomp={read_file(project.path(value), most=4 << 20).decode()}"
        except (OSError, UnicodeDecodeError) as e:
            raise ComposeError(f"opening seccomp profile ({value}) failed: {e}") from None
    return option if not separator or separator == "=" else f"{name}={value}"


def _from(text: str, resolve: Resolve) -> str:
    if text.startswith("container:"):
        return text.removeprefix("container:")
    name, colon, mode = text.partition(":")
    return resolve(name) + colon + mode


def restart_policy(service: Any) -> Object:
    """``restart``; without it, ``deploy.restart_policy`` in its meaning outside a swarm."""
    text = service.get("restart") or ""
    deploy = ((service.get("deploy") or {}).get("restart_policy")) or {}
    if text:
        name, _, count = text.partition(":")
        if count and not count.isdecimal():
            raise ComposeError(f"invalid restart policy {text!r}: the number of retries must be a number")
        return {"Name": name, "MaximumRetryCount": int(count or 0)}
    if deploy:
        attempts = int(deploy.get("max_attempts") or 0)
        words = {"none": "no", "on-failure": "on-failure", "any": "always", "": "always"}
        condition = str(deploy.get("condition") or "")
        if condition not in words:
            raise ComposeError(f'unsupported restart condition "{condition}": none, on-failure or any')
        return {"Name": words[condition], "MaximumRetryCount": attempts if condition == "on-failure" else 0}
    return {"Name": "no", "MaximumRetryCount": 0}


_NUMBERS = {
    "CpuShares": "cpu_shares",
    "CpuPeriod": "cpu_period",
    "CpuQuota": "cpu_quota",
    "CpuRealtimePeriod": "cpu_rt_period",
    "CpuRealtimeRuntime": "cpu_rt_runtime",
    "OomScoreAdj": "oom_score_adj",
}


def _resources(service: Any) -> Object:
    resources = (service.get("deploy") or {}).get("resources") or {}
    limits, reserved = resources.get("limits") or {}, resources.get("reservations") or {}
    made: Object = {member: int(service.get(key) or 0) for member, key in _NUMBERS.items()}
    made["CpusetCpus"] = service.get("cpuset") or ""
    made["CgroupParent"] = service.get("cgroup_parent") or ""
    made["Memory"] = size(limits.get("memory") or service.get("mem_limit") or 0)
    made["MemoryReservation"] = size(reserved.get("memory") or service.get("mem_reservation") or 0)
    made["MemorySwap"] = size(service.get("memswap_limit") or 0)
    if "mem_swappiness" in service:
        made["MemorySwappiness"] = size(service["mem_swappiness"])
    made["NanoCpus"] = round(float(limits.get("cpus") or service.get("cpus") or 0) * 10**9)
    made["PidsLimit"] = int(limits.get("pids") or service.get("pids_limit") or 0)
    made["OomKillDisable"] = bool(service.get("oom_kill_disable"))
    made["DeviceCgroupRules"] = list(service.get("device_cgroup_rules") or ())
    made["Ulimits"] = _ulimits(service.get("ulimits") or {})
    devices, names = _devices(service.get("devices") or ())
    made["Devices"] = devices
    made["DeviceRequests"] = _requests(service, reserved) + names or None
    return made | _blkio(service.get("blkio_config") or {})


def _ulimits(limits: Any) -> list[Object]:
    return [
        {
            "Name": name,
            "Soft": limits[name].get("single", limits[name].get("soft")),
            "Hard": limits[name].get("single", limits[name].get("hard")),
        }
        for name in sorted(limits)
    ]


def _devices(devices: Any) -> tuple[list[Object], list[Object]]:
    """Device nodes as mappings; names of CDI devices (``vendor.com/class=name``) as requests."""
    plain: list[Object] = []
    named: list[str] = []
    for one in devices:
        source = one["source"]
        if not source.startswith("/") and "=" in source and "/" in source.partition("=")[0]:
            named.append(source)
            continue
        permissions = one.get("permissions") or "rwm"
        plain.append(
            {
                "PathOnHost": source,
                "PathInContainer": one.get("target") or source,
                "CgroupPermissions": permissions,
            }
        )
    return plain, [{"Driver": "cdi", "DeviceIDs": named}] if named else []


def _requests(service: Any, reserved: Any) -> list[Object]:
    gpus = [
        {**one, "capabilities": [*(one.get("capabilities") or ()), "gpu"]}
        for one in service.get("gpus") or ()
    ]
    return [
        {
            "Driver": one.get("driver") or "",
            "Count": int(one.get("count") or 0),
            "DeviceIDs": list(one.get("device_ids") or ()) or None,
            "Capabilities": [list(dict.fromkeys(one.get("capabilities") or ()))],
            "Options": dict(one.get("options") or {}) or None,
        }
        for one in [*gpus, *(reserved.get("devices") or ())]
    ]


def _blkio(config: Any) -> Object:
    def rates(key: str) -> list[Object]:
        return [{"Path": one["path"], "Rate": size(one["rate"])} for one in config.get(key) or ()]

    return {
        "BlkioWeight": int(config.get("weight") or 0),
        "BlkioWeightDevice": [
            {"Path": one["path"], "Weight": one["weight"]} for one in config.get("weight_device") or ()
        ],
        "BlkioDeviceReadBps": rates("device_read_bps"),
        "BlkioDeviceReadIOps": rates("device_read_iops"),
        "BlkioDeviceWriteBps": rates("device_write_bps"),
        "BlkioDeviceWriteIOps": rates("device_write_iops"),
    }


def service_labels(
    project: Project, name: str, service: Any, number: int, config_hash: str
) -> dict[str, str]:
    """The labels by which a service's container is found."""
    needs = service.get("depends_on") or {}
    return {
        labels.CONFIG_HASH: config_hash,
        labels.NUMBER: str(number),
        labels.ONEOFF: "False",
        labels.DEPENDENCIES: ",".join(
            f"{other}:{needs[other]['condition']}:{str(bool(needs[other].get('restart'))).lower()}"
            for other in sorted(needs)
        ),
        **project_labels(project),
        labels.SERVICE: name,
    }


def project_labels(project: Project) -> dict[str, str]:
    made = {
        labels.PROJECT: project.name,
        labels.WORKING_DIR: project.directory,
        labels.CONFIG_FILES: ",".join(project.files),
        labels.VERSION: labels.SPOKEN,
    }
    if project.env_files:
        made[labels.ENVIRONMENT_FILE] = ",".join(project.env_files)
    return made
