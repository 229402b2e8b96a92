"""Every key of a Compose file, in the order in which Docker's plugin writes them (Compose specification,
2025).

Short forms become long forms here; the users of the project interpret the keys.
"""

from __future__ import annotations

from wherry.compose import shorthand
from wherry.compose.forms import (
    CommandForm,
    External,
    Hosts,
    Names,
    Provenance,
    Test,
    Through,
    UlimitForm,
    valid_name,
)
from wherry.compose.kinds import UNWRITTEN, Choice, DictOf, Field, Free, ListOf, Object, Words
from wherry.compose.places import mapping
from wherry.compose.scalars import (
    BOOL,
    BOOL_SET,
    COUNT,
    DURATION,
    INT,
    INT_SET,
    MODE,
    NATURAL,
    NATURAL_SET,
    NUMBER,
    SIZE,
    STRING,
    STRING_OR_NULL,
    STRING_OR_NUMBER,
    WORD,
)

STRINGS = ListOf(STRING)
UNIQUE = ListOf(STRING, unique=True)
STRING_OR_LIST = ListOf(STRING, single=True)
ENVIRONMENT = Words(None)
LABELS = Words("")
OPTIONS = DictOf(STRING_OR_NUMBER)

HOOK = Object(
    {
        "command": Field(CommandForm(), always=True),
        "user": STRING,
        "privileged": BOOL,
        "working_dir": STRING,
        "environment": ENVIRONMENT,
    },
    needs=("command",),
)
FILE_REFERENCE = ListOf(
    Object(
        {"source": STRING, "target": STRING, "uid": STRING, "gid": STRING, "mode": MODE},
        short=shorthand.source,
        needs=("source",),
    )
)
DEVICE_REQUEST = {
    "capabilities": UNIQUE,
    "driver": STRING,
    "count": COUNT,
    "device_ids": UNIQUE,
    "options": LABELS,
}
ULIMITS = DictOf(UlimitForm(), key=lambda name: name.isascii() and name.isalpha() and name.islower())
BUILD = Object(
    {
        "context": STRING,
        "dockerfile": STRING,
        "dockerfile_inline": STRING,
        "entitlements": STRINGS,
        "args": ENVIRONMENT,
        "provenance": Provenance(),
        "sbom": Provenance(),
        "ssh": Names("ssh"),
        "labels": LABELS,
        "cache_from": STRINGS,
        "cache_to": STRINGS,
        "no_cache": BOOL,
        "additional_contexts": LABELS,
        "pull": BOOL,
        "extra_hosts": Hosts(),
        "isolation": STRING,
        "network": STRING,
        "target": STRING,
        "secrets": FILE_REFERENCE,
        "shm_size": SIZE,
        "tags": STRINGS,
        "ulimits": ULIMITS,
        "platforms": STRINGS,
        "privileged": BOOL,
    },
    short=shorthand.build,
)
DEVELOP = Object(
    {
        "watch": ListOf(
            Object(
                {
                    "path": STRING,
                    "action": Choice("sync", "rebuild", "restart", "sync+restart", "sync+exec"),
                    "target": STRING,
                    "exec": Field(HOOK, inline=True),
                    "include": STRING_OR_LIST,
                    "ignore": STRING_OR_LIST,
                    "initial_sync": BOOL,
                },
                needs=("path", "action"),
            )
        )
    },
    null=True,
)
_RATE = ListOf(
    Object({"path": Field(STRING, written="Path"), "rate": Field(SIZE, written="Rate")}, extras=False)
)
BLKIO = Object(
    {
        "weight": NATURAL,
        "weight_device": ListOf(
            Object(
                {"path": Field(STRING, written="Path"), "weight": Field(NATURAL, written="Weight")},
                extras=False,
            )
        ),
        "device_read_bps": _RATE,
        "device_read_iops": _RATE,
        "device_write_bps": _RATE,
        "device_write_iops": _RATE,
    },
    extras=False,
)
_UPDATE = Object(
    {
        "parallelism": NATURAL_SET,
        "delay": DURATION,
        "failure_action": STRING,
        "monitor": DURATION,
        "max_failure_ratio": NUMBER,
        "order": Choice("start-first", "stop-first"),
    }
)
_LIMITS = {"cpus": NUMBER, "memory": SIZE, "pids": INT}
_RESERVATIONS = {
    "cpus": NUMBER,
    "memory": SIZE,
    "devices": ListOf(Object(DEVICE_REQUEST, needs=("capabilities",))),
    "generic_resources": ListOf(
        Object({"discrete_resource_spec": Object({"kind": STRING, "value": INT})}),
    ),
}
DEPLOY = Object(
    {
        "mode": STRING,
        "replicas": INT_SET,
        "labels": LABELS,
        "update_config": _UPDATE,
        "rollback_config": _UPDATE,
        "resources": Field(
            Object({"limits": Object(_LIMITS), "reservations": Object(_RESERVATIONS)}), inline=True
        ),
        "restart_policy": Object(
            {"condition": STRING, "delay": DURATION, "max_attempts": NATURAL_SET, "window": DURATION}
        ),
        "placement": Field(
            Object(
                {
                    "constraints": STRINGS,
                    "preferences": ListOf(Object({"spread": STRING})),
                    "max_replicas_per_node": NATURAL,
                }
            ),
            inline=True,
        ),
        "endpoint_mode": STRING,
    },
    null=True,
)
HEALTHCHECK = Object(
    {
        "test": Test(),
        "timeout": DURATION,
        "interval": DURATION,
        "retries": NATURAL_SET,
        "start_period": DURATION,
        "start_interval": DURATION,
        "disable": BOOL,
    }
)
PORT = Object(
    {
        "name": STRING,
        "mode": STRING,
        "host_ip": STRING,
        "target": NATURAL,
        "published": STRING_OR_NUMBER,
        "protocol": STRING,
        "app_protocol": STRING,
    },
    short=shorthand.port,
)
VOLUME = Object(
    {
        "type": Choice("bind", "volume", "tmpfs", "cluster", "npipe", "image"),
        "source": STRING,
        "target": STRING,
        "read_only": BOOL,
        "consistency": STRING,
        "bind": Object(
            {
                "selinux": Choice("z", "Z"),
                "propagation": STRING,
                "create_host_path": BOOL,
                "recursive": Choice("enabled", "disabled", "writable", "readonly"),
            }
        ),
        "volume": Object({"labels": LABELS, "nocopy": BOOL, "subpath": STRING}),
        "tmpfs": Object({"size": SIZE, "mode": NATURAL}),
        "image": Object({"subpath": STRING}),
    },
    short=shorthand.volume,
    needs=("type",),
)
DEPENDENCY = Object(
    {
        "condition": Field(
            Choice("service_started", "service_healthy", "service_completed_successfully"), always=True
        ),
        "restart": BOOL,
        "required": Field(BOOL_SET, always=True),
    },
    needs=("condition",),
)
SERVICE_NETWORK = Object(
    {
        "aliases": UNIQUE,
        "driver_opts": OPTIONS,
        "gw_priority": INT,
        "interface_name": STRING,
        "ipv4_address": STRING,
        "ipv6_address": STRING,
        "link_local_ips": UNIQUE,
        "mac_address": STRING,
        "priority": INT,
    }
)
SERVICE = Object(
    {
        "profiles": UNIQUE,
        "annotations": LABELS,
        "attach": BOOL_SET,
        "build": BUILD,
        "develop": DEVELOP,
        "blkio_config": BLKIO,
        "cap_add": UNIQUE,
        "cap_drop": UNIQUE,
        "cgroup_parent": STRING,
        "cgroup": Choice("host", "private"),
        "cpu_count": NATURAL,
        "cpu_percent": NUMBER,
        "cpu_period": INT,
        "cpu_quota": INT,
        "cpu_rt_period": INT,
        "cpu_rt_runtime": INT,
        "cpus": NUMBER,
        "cpuset": STRING,
        "cpu_shares": INT,
        "command": Field(CommandForm(), always=True),
        "configs": FILE_REFERENCE,
        "container_name": STRING,
        "credential_spec": Object({"config": STRING, "file": STRING, "registry": STRING}),
        "depends_on": Names("depends_on", DEPENDENCY),
        "deploy": DEPLOY,
        "device_cgroup_rules": UNIQUE,
        "devices": ListOf(
            Object(
                {"source": STRING, "target": STRING, "permissions": STRING},
                short=shorthand.device,
                needs=("source",),
            )
        ),
        "dns": STRING_OR_LIST,
        "dns_opt": UNIQUE,
        "dns_search": STRING_OR_LIST,
        "domainname": STRING,
        "entrypoint": Field(CommandForm(), always=True),
        "provider": Object(
            {"type": STRING, "options": DictOf(ListOf(WORD, single=True, words="a value or a list"))},
            needs=("type",),
        ),
        "environment": ENVIRONMENT,
        "env_file": ListOf(
            Object(
                {"path": STRING, "required": Field(BOOL_SET), "format": STRING},
                short=shorthand.env_file,
                needs=("path",),
                extras=False,
            ),
            single=True,
        ),
        "expose": ListOf(STRING_OR_NUMBER, unique=True),
        "extends": Field(
            Object(
                {"file": STRING, "service": STRING}, short=shorthand.extends, needs=("service",), extras=False
            ),
            written=UNWRITTEN,
        ),
        "external_links": UNIQUE,
        "extra_hosts": Hosts(),
        "group_add": ListOf(STRING_OR_NUMBER, unique=True),
        "gpus": Through(shorthand.gpus, ListOf(Object(DEVICE_REQUEST))),
        "hostname": STRING,
        "healthcheck": HEALTHCHECK,
        "image": STRING,
        "init": BOOL_SET,
        "ipc": STRING,
        "isolation": STRING,
        "labels": LABELS,
        "label_file": STRING_OR_LIST,
        "links": UNIQUE,
        "logging": Object({"driver": STRING, "options": DictOf(STRING_OR_NUMBER, null=True)}),
        "mem_limit": SIZE,
        "mem_reservation": SIZE,
        "memswap_limit": SIZE,
        "mem_swappiness": SIZE,
        "mac_address": STRING,
        "models": Names("models", Object({"endpoint_var": STRING, "model_var": STRING})),
        "network_mode": STRING,
        "networks": Names("networks", SERVICE_NETWORK),
        "oom_kill_disable": BOOL,
        "oom_score_adj": INT,
        "pid": STRING_OR_NULL,
        "pids_limit": INT,
        "platform": STRING,
        "ports": ListOf(PORT),
        "privileged": BOOL,
        "pull_policy": STRING,
        "pull_refresh_after": Field(STRING, written=UNWRITTEN),
        "read_only": BOOL,
        "restart": STRING,
        "runtime": STRING,
        "scale": INT_SET,
        "secrets": FILE_REFERENCE,
        "security_opt": UNIQUE,
        "shm_size": SIZE,
        "stdin_open": BOOL,
        "stop_grace_period": DURATION,
        "stop_signal": STRING,
        "storage_opt": OPTIONS,
        "sysctls": LABELS,
        "tmpfs": STRING_OR_LIST,
        "tty": BOOL,
        "ulimits": ULIMITS,
        "use_api_socket": BOOL,
        "user": STRING,
        "userns_mode": STRING,
        "uts": STRING,
        "volumes": ListOf(VOLUME),
        "volumes_from": UNIQUE,
        "working_dir": STRING,
        "post_start": ListOf(HOOK),
        "pre_stop": ListOf(HOOK),
    }
)
NETWORK = Object(
    {
        "name": STRING,
        "driver": STRING,
        "driver_opts": OPTIONS,
        "ipam": Field(
            Object(
                {
                    "driver": STRING,
                    "config": ListOf(
                        Object(
                            {
                                "subnet": STRING,
                                "gateway": STRING,
                                "ip_range": STRING,
                                "aux_addresses": DictOf(STRING),
                            }
                        )
                    ),
                    "options": Field(DictOf(STRING), written=UNWRITTEN),
                }
            ),
            inline=True,
        ),
        "external": External(),
        "internal": BOOL,
        "attachable": BOOL,
        "labels": LABELS,
        "enable_ipv4": BOOL_SET,
        "enable_ipv6": BOOL_SET,
    },
    null=True,
)
VOLUME_DEFINITION = Object(
    {"name": STRING, "driver": STRING, "driver_opts": OPTIONS, "external": External(), "labels": LABELS},
    null=True,
)
_FILE = {"name": STRING, "file": STRING, "environment": STRING, "content": STRING, "external": External()}
_DRIVEN = {"labels": LABELS, "driver": STRING, "driver_opts": OPTIONS, "template_driver": STRING}
CONFIG = Object({**_FILE, **{key: _DRIVEN[key] for key in ("labels", "template_driver")}})
SECRET = Object({key: kind for key, kind in {**_FILE, **_DRIVEN}.items() if key != "content"})
MODEL = Object(
    {"name": STRING, "model": STRING, "context_size": INT, "runtime_flags": STRINGS}, needs=("model",)
)
INCLUDE = ListOf(
    Object(
        {"path": STRING_OR_LIST, "project_directory": STRING, "env_file": STRING_OR_LIST},
        short=lambda value, at, path: mapping({"path": value}, at) if isinstance(value, str) else value,
        needs=("path",),
        extras=False,
    )
)
PROJECT = Object(
    {
        "version": Free(),
        "name": STRING,
        "include": INCLUDE,
        "services": DictOf(SERVICE, key=valid_name),
        "networks": DictOf(NETWORK, key=valid_name),
        "volumes": DictOf(VOLUME_DEFINITION, key=valid_name),
        "secrets": DictOf(SECRET, key=valid_name),
        "configs": DictOf(CONFIG, key=valid_name),
        "models": DictOf(MODEL, key=valid_name),
    }
)
