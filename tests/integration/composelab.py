"""Compose projects for the tests: generated ones, and Docker's plugin of both releases beside ours."""

from __future__ import annotations

import functools
import random
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
OLD, NEW = "old", "new"


def plugin(release: str) -> Path | None:
    """Docker's compose plugin, where ``scripts/fetch-plugins`` has put it."""
    path = ROOT / ".cache" / "plugins" / release / "docker-compose"
    return path if path.exists() else None


def compose(
    command: list[str],
    where: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, *arguments],
        cwd=where,
        env=None if env is None else dict(env),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


WORDS = ["web", "a b", "true", "12", "x=y", "$$HOME", "<&>", "ü", "", "a:b", "#no", "  pad ", "null", "1e3"]
IMAGES = ["busybox", "busybox:1", "reg.example:5000/a/b@sha256:" + "0" * 64]
SIZES: list[Any] = ["64m", "1g", "1.5gb", 1048576, "512k", "100b"]
SPANS = ["1m30s", "90s", "500ms", "1h", "2h45m", "10s"]


class Generator:
    """Services with random keys, in random forms. Each draw depends on the seed alone."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)
        self.keys = sorted(self.makers())

    def project(self, count: int) -> dict[str, Any]:
        services: dict[str, Any] = {"base": {"image": "busybox"}, "other": {"image": "busybox"}}
        for number in range(count):
            services[f"s{number}"] = self.service()
        return {
            "services": services,
            "networks": {"front": {}, "back": {"internal": True}},
            "volumes": {"data": {}, "more": {"driver_opts": {"size": 10}}},
            "secrets": {"token": {"environment": "HOME"}, "key": {"file": "./key.txt"}},
            "configs": {"conf": {"content": "text ${HOME}"}},
        }

    def service(self) -> dict[str, Any]:
        makers = self.makers()
        made: dict[str, Any] = {"image": self.r.choice(IMAGES)}
        for key in self.r.sample(self.keys, self.r.randint(1, 12)):
            made[key] = makers[key]()
        if "network_mode" in made:
            made.pop("networks", None)
            made.pop("links", None)
        if "mem_reservation" in made and "mem_limit" not in made:
            made["mem_limit"] = "8g"
        return made

    def word(self) -> str:
        return self.r.choice(WORDS)

    def words(self, *pool: Any) -> list[Any]:
        return self.r.sample(list(pool), self.r.randint(1, len(pool)))

    def pairs(self, *, null: bool) -> Any:
        values: list[Any] = [self.word(), self.r.randint(-5, 10**7), self.r.random() * 10]
        values += [True, False, 2.0, 1e21]
        if null:
            values.append(None)
        found = {f"K{n}": self.r.choice(values) for n in range(self.r.randint(1, 4))}
        if self.r.random() < 0.5:
            return found
        return [k if v is None else f"{k}={v}" for k, v in found.items()]

    def port(self) -> Any:
        low = self.r.randint(1000, 60000)
        return self.r.choice(
            [
                low,
                f"{low}",
                f"{low}:80",
                f"127.0.0.1:{low}:{low}/udp",
                f"{low}-{low + 2}:{low}-{low + 2}",
                f"{low}-{low + 2}:80",
                f"[::1]:{low}:{low}",
                f"127.0.0.1::{low}",
                {"target": low},
                {"target": low, "published": low, "host_ip": "127.0.0.1", "mode": "host"},
                {"target": str(low), "published": f"{low}-{low + 1}", "protocol": "udp", "name": "n"},
            ]
        )

    def volume(self, target: str) -> Any:
        return self.r.choice(
            [
                target,
                f"data:{target}",
                f"data:{target}:ro",
                f"./here:{target}:rw,z",
                f"/abs{target}:{target}:ro,rslave",
                f"~/x:{target}",
                f"../up:{target}:cached",
                {"type": "volume", "source": "more", "target": target, "volume": {"nocopy": True}},
                {"type": "bind", "source": "./b", "target": target},
                {"type": "bind", "source": "./b", "target": target, "bind": {"propagation": "rshared"}},
                {"type": "bind", "source": "./b", "target": target, "bind": {"create_host_path": False}},
                {"type": "tmpfs", "target": target, "tmpfs": {"size": self.r.choice(SIZES), "mode": 0o1777}},
                {"type": "volume", "target": target, "read_only": True},
                {"type": "image", "source": "busybox", "target": target, "image": {"subpath": "x"}},
            ]
        )

    def health(self) -> dict[str, Any]:
        tests: list[Any] = ["true", ["CMD", "true"], ["CMD-SHELL", "exit 0"], ["NONE"]]
        made: dict[str, Any] = {"test": self.r.choice(tests)}
        for key in ("interval", "timeout", "start_period", "start_interval"):
            if self.r.random() < 0.5:
                made[key] = self.r.choice(SPANS)
        if self.r.random() < 0.5:
            made["retries"] = self.r.choice([0, 3, "5"])
        return made

    def deploy(self) -> dict[str, Any]:
        makers: dict[str, Callable[[], Any]] = {
            "replicas": lambda: self.r.randint(0, 3),
            "labels": lambda: self.pairs(null=True),
            "mode": lambda: "replicated",
            "resources": lambda: self.r.choice(
                [
                    {"limits": {"memory": "8g", "pids": 10}},
                    {"limits": {"cpus": "0.5"}},
                    {
                        "reservations": {
                            "memory": "20m",
                            "devices": [{"capabilities": ["gpu"], "driver": "d"}],
                        }
                    },
                    {"reservations": {"devices": [{"capabilities": ["gpu"], "device_ids": ["0"]}]}},
                ]
            ),
            "restart_policy": lambda: {
                "condition": "on-failure",
                "delay": self.r.choice(SPANS),
                "max_attempts": 0,
            },
            "update_config": lambda: {"parallelism": 0, "order": "start-first", "max_failure_ratio": 0.3},
            "placement": lambda: {"constraints": ["node.role == manager"], "preferences": [{"spread": "x"}]},
            "endpoint_mode": lambda: "vip",
        }
        return {key: makers[key]() for key in self.r.sample(sorted(makers), self.r.randint(0, 4))}

    def networks(self) -> Any:
        full = {
            "aliases": self.words("x", "y"),
            "ipv4_address": "172.16.238.10",
            "priority": self.r.randint(0, 1000),
            "mac_address": "02:42:ac:11:65:43",
            "driver_opts": {"a": self.r.choice(["b", 1])},
            "gw_priority": 1,
        }
        part = {key: full[key] for key in self.r.sample(sorted(full), self.r.randint(0, 4))}
        return self.r.choice([["front"], ["front", "default"], {"back": None, "front": part}, {"back": part}])

    def ulimits(self) -> dict[str, Any]:
        limits = [10, "20", {"soft": 5, "hard": 6}]
        return {name: self.r.choice(limits) for name in self.words("nofile", "nproc", "core")}

    def makers(self) -> dict[str, Callable[[], Any]]:
        r = self.r
        simple: dict[str, list[Any]] = {
            "attach": [True, False],
            "cap_add": [["NET_ADMIN"], ["ALL", "SYS_TIME"]],
            "cap_drop": [["ALL"]],
            "cgroup": ["host", "private"],
            "cgroup_parent": ["m"],
            "command": [
                "echo hi",
                'sh -c "echo $$X; ls"',
                ["a", "b c"],
                [],
                None,
                "",
                "a 'b c' d\\ e",
                'x "y\\"z"',
            ],
            "cpus": [0.5, "1.25", 2, "0.1", 0.3],
            "cpu_shares": [0, 512, "1024"],
            "cpu_period": [100000],
            "cpu_quota": ["50000"],
            "cpuset": ["0,1"],
            "depends_on": [
                ["base"],
                ["base", "other"],
                {"base": {"condition": "service_healthy"}},
                {"base": {"condition": "service_started", "required": False, "restart": True}},
            ],
            "device_cgroup_rules": [["c 1:3 mr"]],
            "devices": [["/dev/null"], ["/dev/null:/dev/x:r"], [{"source": "/dev/zero", "permissions": "r"}]],
            "dns": ["8.8.8.8", ["8.8.8.8", "9.9.9.9"]],
            "dns_opt": [["use-vc"]],
            "dns_search": ["example.com", ["a", "b"]],
            "domainname": ["example.com"],
            "entrypoint": ["/bin/sh -c", ["/x", "y"], None, []],
            "env_file": ["./e.env", ["./e.env", "./f.env"], [{"path": "./none.env", "required": False}]],
            "expose": [["80"], [80, "90-92"]],
            "external_links": [["redis"], ["db:mysql"]],
            "extra_hosts": [["a:1.2.3.4", "b=::1"], {"c": "1.2.3.4", "a": ["::1", "1.1.1.1"]}],
            "gpus": ["all", [{"driver": "d", "count": 2}], [{"device_ids": ["1"]}]],
            "group_add": [["mail"], [1000, "x"]],
            "hostname": ["h"],
            "init": [True, False],
            "ipc": ["host", "shareable"],
            "isolation": ["default"],
            "label_file": ["./l.env", ["./l.env"]],
            "links": [["base"], ["base:alias", "other"]],
            "logging": [
                {"driver": "json-file", "options": {"max-size": "1m", "max-file": 3}},
                {"driver": "none"},
                {},
            ],
            "mac_address": ["02:42:ac:11:65:43"],
            "mem_limit": ["8g"],
            "mem_reservation": ["20m"],
            "mem_swappiness": [0, 60, "10"],
            "memswap_limit": [-1, "16g"],
            "network_mode": ["host", "none", "bridge", "service:base"],
            "oom_kill_disable": [True, False],
            "oom_score_adj": [-500, 0],
            "pid": ["host", "service:other"],
            "pids_limit": [10, -1],
            "platform": ["linux/amd64"],
            "privileged": [True, False],
            "profiles": [[]],
            "pull_policy": ["always", "missing", "if_not_present", "never"],
            "read_only": [True, "false"],
            "restart": ["no", "always", "on-failure:3", "unless-stopped"],
            "runtime": ["runc"],
            "security_opt": [["no-new-privileges:true"], ["seccomp:unconfined"]],
            "stdin_open": [True],
            "stop_signal": ["SIGINT"],
            "storage_opt": [{"size": "1G"}],
            "tmpfs": ["/run", ["/run:size=1m", "/tmpx"]],
            "tty": [True, False],
            "user": ["1000", "a:b"],
            "userns_mode": ["host"],
            "uts": ["host"],
            "volumes_from": [["base"], ["other:ro", "container:x"]],
            "working_dir": ["/w"],
            "x-more": [{"a": 1}],
            "pre_stop": [[{"command": "echo bye"}]],
            "post_start": [[{"command": ["a"], "user": "root", "privileged": True, "environment": {"A": 1}}]],
            "secrets": [
                ["token"],
                [{"source": "key", "target": "k", "uid": "1", "mode": 0o440}],
                ["token", "key"],
            ],
            "configs": [["conf"], [{"source": "conf", "target": "/c", "mode": "0400"}]],
            "build": [
                ".",
                {"context": "./d", "args": {"A": 1}},
                {"context": ".", "dockerfile_inline": "FROM x"},
            ],
        }
        makers: dict[str, Callable[[], Any]] = {
            key: functools.partial(r.choice, values) for key, values in simple.items()
        }
        makers |= {
            "annotations": lambda: self.pairs(null=True),
            "deploy": self.deploy,
            "environment": lambda: self.pairs(null=True),
            "healthcheck": self.health,
            "labels": lambda: self.pairs(null=True),
            "networks": self.networks,
            "ports": lambda: [self.port() for _ in range(r.randint(1, 3))],
            "shm_size": lambda: r.choice(SIZES),
            "stop_grace_period": lambda: r.choice(SPANS),
            "sysctls": lambda: self.pairs(null=False),
            "ulimits": self.ulimits,
            "volumes": lambda: [self.volume(f"/v{n}") for n in range(r.randint(1, 3))],
            "blkio_config": lambda: {"weight": 300, "device_read_bps": [{"path": "/dev/sda", "rate": "1mb"}]},
        }
        return makers


def write(project: dict[str, Any], where: Path) -> Path:
    """The project as a file, with what it names beside it."""
    for name, text in (
        ("e.env", "Q=1\nR=$HOME\n"),
        ("f.env", "S='a b'\n"),
        ("l.env", "l1=x\n"),
        ("key.txt", "k"),
    ):
        (where / name).write_text(text)
    path = where / "compose.yaml"
    path.write_text(yaml.safe_dump(project, sort_keys=False, allow_unicode=True))
    return path
