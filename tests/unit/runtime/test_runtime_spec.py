from __future__ import annotations

import json
from typing import Any

import pytest

from wherry.errors import InvalidArgument
from wherry.linux import capabilities, seccomp
from wherry.linux.users import User
from wherry.model.container import DeviceMapping, HostConfig, Ulimit
from wherry.runtime import limits
from wherry.runtime.security import parse_security_options
from wherry.runtime.spec import (
    Namespaces,
    OciMount,
    Process,
    SpecRequest,
    build,
    capability_set,
)
from wherry.runtime.words import explain


def spec(host: HostConfig | None = None, uid: int = 0, **more: Any) -> dict[str, Any]:
    host = host or HostConfig()
    request = SpecRequest(
        hostname="box",
        domainname="",
        rootfs="/r",
        process=Process(["sh"], ["A=1"], "/", User(uid, 0, (), "/")),
        host=host,
        namespaces=Namespaces("/run/netns/x"),
        cgroup_path="/p/x",
        security=parse_security_options(host.security_opt or (), privileged=host.privileged),
        architecture="amd64",
        **more,
    )
    found: dict[str, Any] = json.loads(build(request))
    return found


def test_defaults() -> None:
    found = spec()
    caps = found["process"]["capabilities"]
    assert set(caps["bounding"]) == set(capabilities.DEFAULT) & set(capabilities.available())
    assert caps["inheritable"] == caps["ambient"] == []
    assert "/proc/kcore" in found["linux"]["maskedPaths"]
    assert "/proc/sys" in found["linux"]["readonlyPaths"]
    assert found["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {n["type"] for n in found["linux"]["namespaces"]} == {"mount", "network", "ipc", "pid", "uts"}
    assert found["linux"]["resources"]["devices"][0] == {"allow": False, "access": "rwm"}


def test_every_user_may_be_given_what_the_commands_file_has() -> None:
    """The kernel takes the rest away when the command of another user than root is executed."""
    caps = spec(uid=1000)["process"]["capabilities"]
    assert caps["effective"] == caps["permitted"] == caps["bounding"] != []
    assert caps["inheritable"] == caps["ambient"] == []


def test_privileged() -> None:
    found = spec(HostConfig(privileged=True))
    assert "seccomp" not in found["linux"] and "maskedPaths" not in found["linux"]
    assert found["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert tuple(found["process"]["capabilities"]["bounding"]) == capabilities.available()


def test_mounts_are_ordered_by_depth_and_replace_defaults() -> None:
    mounts = [OciMount("/a/b", "bind", "/x"), OciMount("/a", "bind", "/y"), OciMount("/dev", "bind", "/z")]
    found = [m["destination"] for m in spec(mounts=mounts)["mounts"]]
    assert found.index("/a") < found.index("/a/b")
    assert found.count("/dev") == 1


def test_capability_arithmetic() -> None:
    def caps(add: list[str] | str | None = None, drop: list[str] | str | None = None) -> set[str]:
        return set(capability_set(HostConfig(cap_add=add, cap_drop=drop)))

    default = caps()
    assert caps(["net_admin"]) == default | {"CAP_NET_ADMIN"}
    assert caps(None, ["CAP_CHOWN"]) == default - {"CAP_CHOWN"}
    assert caps(None, "ALL") == set()
    assert caps(["NET_RAW"], ["all"]) == {"CAP_NET_RAW"}
    assert caps("ALL") == set(capabilities.available())
    assert caps(["ALL"], ["CHOWN"]) == set(capabilities.available()) - {"CAP_CHOWN"}
    with pytest.raises(InvalidArgument, match=r"invalid Cap(Add|Drop): unknown capability"):
        caps(["NOTHING"])


def allowed(profile: dict[str, Any], name: str) -> bool:
    return any(
        name in r["names"] and r["action"] == "SCMP_ACT_ALLOW" and not r.get("args")
        for r in profile["syscalls"]
    )


def test_default_filter() -> None:
    plain = seccomp.default_profile(capabilities.DEFAULT, "amd64")
    for name in ("read", "openat2", "execve", "socketpair", "arch_prctl"):
        assert allowed(plain, name), name
    refused = """
        mount bpf keyctl add_key unshare setns reboot kexec_load init_module perf_event_open io_uring_setup
        userfaultfd open_by_handle_at clone socket
    """
    for name in refused.split():
        assert not allowed(plain, name), name
    admin = seccomp.default_profile([*capabilities.DEFAULT, "CAP_SYS_ADMIN"], "amd64")
    for name in ("mount", "unshare", "setns"):
        assert allowed(admin, name), name


def test_profiles_in_dockers_format() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["a"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["b"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["c"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["d"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
        ],
    }
    found = seccomp.from_docker_profile(profile, [], "amd64")
    assert [r["names"] for r in found["syscalls"]] == [["a"], ["c"]]
    assert found["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    with pytest.raises(InvalidArgument, match="seccomp profile"):
        spec(HostConfig(security_opt=["seccomp={"]))


def test_limits() -> None:
    found = limits.resources(HostConfig(memory=64 << 20, nano_cpus=500_000_000, pids_limit=9, cpu_shares=5))
    assert found["memory"] == {"limit": 64 << 20, "swap": 128 << 20}
    assert found["cpu"] == {"shares": 5, "period": 100_000, "quota": 50_000}
    assert found["pids"] == {"limit": 9}
    assert limits.resources(HostConfig(pids_limit=-1)) == {}
    assert (
        limits.rlimits(HostConfig(ulimits=[Ulimit(name="core", soft=-1, hard=-1)]))[0]["hard"]
        == (1 << 64) - 1
    )


@pytest.mark.parametrize(
    "host",
    [
        HostConfig(memory=1024),
        HostConfig(memory=-1),
        HostConfig(memory_swap=1 << 30),
        HostConfig(memory=1 << 30, memory_swap=1 << 20),
        HostConfig(memory=1 << 30, memory_reservation=1 << 31),
        HostConfig(memory_swappiness=101),
        HostConfig(nano_cpus=10**18),
        HostConfig(nano_cpus=1, cpu_quota=1),
        HostConfig(cpu_period=5),
        HostConfig(cpu_quota=5),
        HostConfig(cpu_shares=-1),
        HostConfig(oom_score_adj=1001),
        HostConfig(shm_size=-1),
        HostConfig(ulimits=[Ulimit(name="x", soft=1, hard=1)]),
        HostConfig(ulimits=[Ulimit(name="core", soft=2, hard=1)]),
        HostConfig(ulimits=[Ulimit(name="nofile", soft=1, hard=1 << 31)]),
        HostConfig(ulimits=[Ulimit(name="nofile", soft=-1, hard=-1)]),
    ],
)
def test_bad_limits(host: HostConfig) -> None:
    with pytest.raises(InvalidArgument):
        limits.check(host)


@pytest.mark.parametrize("rule", ["", "c 1:1", "x 1:1 r", "c 1 r", "c 1:1 q", "c a:1 r", "c 1:1 r w"])
def test_bad_device_rules(rule: str) -> None:
    with pytest.raises(InvalidArgument):
        limits.devices(HostConfig(device_cgroup_rules=[rule]))


def test_devices() -> None:
    nodes, rules = limits.devices(
        HostConfig(
            devices=[
                DeviceMapping(path_on_host="/dev/null", path_in_container="/dev/n", cgroup_permissions="r")
            ]
        )
    )
    assert (nodes[0]["path"], nodes[0]["major"], nodes[0]["minor"]) == ("/dev/n", 1, 3)
    assert rules[-1] == {"allow": True, "type": "c", "access": "r", "major": 1, "minor": 3}
    for bad in ("/dev/none-such", "/etc/passwd"):
        with pytest.raises(InvalidArgument):
            limits.devices(HostConfig(devices=[DeviceMapping(path_on_host=bad)]))


@pytest.mark.parametrize(
    "option", ["x", "x=y", "no-new-privileges=maybe", "apparmor=profile", "label=type:x"]
)
def test_bad_security_options(option: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_security_options([option], privileged=False)


def test_weights_have_a_range_where_the_kernel_has_weights() -> None:
    limits.check(HostConfig(blkio_weight=9))
    with pytest.raises(InvalidArgument, match="Range of blkio weight is from 10 to 1000"):
        limits.check_weight(HostConfig(blkio_weight=9))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            "chdir `/x`: No such file or directory",
            'chdir to cwd ("/x") set in config.json failed: no such file',
        ),
        ("open executable: Operation not permitted", 'exec: "c": is a directory: permission denied'),
        (
            "mount `/a` to `etc/b`: Not a directory",
            'error mounting "/a" to rootfs at "/etc/b": not a directory: A',
        ),
        (
            "open /proc/sys/net/x: No such file or directory",
            "open /proc/sys/net/x: no such file or directory",
        ),
    ],
)
def test_reasons_in_words_that_scripts_know(message: str, words: str) -> None:
    assert explain(message, "c").message.startswith(words)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("open /proc/sys/net/x: No such file or directory", 127),
        ("mount `/a` to `etc/b`: Not a directory", 126),
        ("executable file `x` not found in $PATH: No such file or directory", 127),
        ("exec /x: no such file or directory", 127),
        ("open executable: Permission denied", 126),
        ("open executable: Operation not permitted", 126),
        ("something else", 128),
    ],
)
def test_exit_codes_of_failed_starts(message: str, code: int) -> None:
    assert explain(message, "x").exit_code == code


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("c 1:3 r", {"type": "c", "major": 1, "minor": 3, "access": "r"}),
        ("b 8:* rwm", {"type": "b", "major": 8, "access": "rwm"}),
        ("a *:* m", {"type": "a", "access": "m"}),
    ],
)
def test_device_rules(rule: str, expected: dict[str, object]) -> None:
    _nodes, rules = limits.devices(HostConfig(device_cgroup_rules=[rule]))
    assert rules[-1] == {"allow": True, **expected}
