"""From run's flags to the body of a create request; the expectations were taken from docker 28's requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wherry.cli.command import Failure
from wherry.cli.commands.run import RUN
from wherry.cli.create.body import build
from wherry.cli.grammar.flags import FlagError, parse
from wherry.errors import InvalidArgument


def body(*argv: str) -> dict[str, Any]:
    options, args = parse(RUN.flags, [*argv], interspersed=False)
    return build(options, args[0], args[1:])


def host(*argv: str) -> dict[str, Any]:
    found: dict[str, Any] = body(*argv, "busybox")["HostConfig"]
    return found


def said(value: Any) -> Any:
    """Without what says nothing, as both clients' bodies are compared."""
    if isinstance(value, dict):
        kept = {k: said(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if v not in (None, "", 0, False, [], {})}
    return value


def test_the_least() -> None:
    assert said(body("busybox")) == {
        "AttachStdout": True,
        "AttachStderr": True,
        "Image": "busybox",
        "HostConfig": {"NetworkMode": "default", "RestartPolicy": {"Name": "no"}, "MemorySwappiness": -1},
    }


def test_the_command_is_everything_after_the_image() -> None:
    assert body("-it", "busybox", "sh", "-c", "--rm", "-x")["Cmd"] == ["sh", "-c", "--rm", "-x"]


def test_streams() -> None:
    interactive = body("-i", "x")
    assert [interactive[k] for k in ("AttachStdin", "OpenStdin", "StdinOnce")] == [True, True, True]
    only = body("-a", "STDERR", "x")
    assert [only[f"Attach{s}"] for s in ("Stdin", "Stdout", "Stderr")] == [False, False, True]
    fed = body("-a", "stdin", "x")
    assert (fed["AttachStdin"], fed["OpenStdin"], fed["AttachStdout"]) == (True, False, False)


def test_process_and_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "here")
    monkeypatch.delenv("NOPE", raising=False)
    made = body(
        *"-e A=1 -e MINE -e NOPE -w /x -u 1:2 -h hh --domainname dd --entrypoint ep -l a=b -l c".split(),
        *"--stop-signal TERM --stop-timeout 5 --init".split(),
        "x",
    )
    assert made["Env"] == ["A=1", "MINE=here", "NOPE"]
    assert made["Labels"] == {"a": "b", "c": ""}
    assert (made["Entrypoint"], made["WorkingDir"], made["User"]) == (["ep"], "/x", "1:2")
    assert (made["Hostname"], made["Domainname"]) == ("hh", "dd")
    assert (made["StopSignal"], made["StopTimeout"], made["HostConfig"]["Init"]) == ("TERM", 5, True)
    assert body("--entrypoint=", "x")["Entrypoint"] == [""]
    assert "Init" not in host() and host("--init=false")["Init"] is False


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "here")
    monkeypatch.delenv("NOPE", raising=False)
    env, labels = tmp_path / "env", tmp_path / "labels"
    env.write_text("\ufeff# note\nA=1\n  B=2 # kept\nMINE\nNOPE\nC=\n\n")
    labels.write_text("la=1\nlb\n")
    made = body("--env-file", str(env), "--label-file", str(labels), "-e", "X=1", "x")
    assert made["Env"] == ["A=1", "B=2 # kept", "MINE=here", "C=", "X=1"]
    assert made["Labels"] == {"la": "1", "lb": ""}


@pytest.mark.parametrize(
    ("specs", "bindings"),
    [
        (["80"], {"80/tcp": [{"HostIp": "", "HostPort": ""}]}),
        (["8080:80/udp"], {"80/udp": [{"HostIp": "", "HostPort": "8080"}]}),
        (["127.0.0.1::80"], {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}),
        (["[::1]:1:2"], {"2/tcp": [{"HostIp": "::1", "HostPort": "1"}]}),
        (["8000-8005:99"], {"99/tcp": [{"HostIp": "", "HostPort": "8000-8005"}]}),
        (
            ["9000-9001:90-91"],
            {"90/tcp": [{"HostIp": "", "HostPort": "9000"}], "91/tcp": [{"HostIp": "", "HostPort": "9001"}]},
        ),
        (["published=80,target=90"], {"90/tcp": [{"HostIp": "", "HostPort": "80"}]}),
        (["1:2", "3:2"], {"2/tcp": [{"HostIp": "", "HostPort": "1"}, {"HostIp": "", "HostPort": "3"}]}),
    ],
)
def test_published_ports(specs: list[str], bindings: dict[str, Any]) -> None:
    made = body(*[word for spec in specs for word in ("-p", spec)], "x")
    assert made["HostConfig"]["PortBindings"] == bindings
    assert made["ExposedPorts"] == {port: {} for port in bindings}


def test_exposed_ports() -> None:
    assert list(body("--expose", "1-2/udp", "--expose", "5", "x")["ExposedPorts"]) == [
        "1/udp",
        "2/udp",
        "5/tcp",
    ]


def test_volumes_and_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = body(
        "-v", "/a:/b:ro", "-v", "vol:/c", "-v", "/anon", "-v", "./rel:/d", "--tmpfs", "/t:size=1m", "x"
    )
    assert made["HostConfig"]["Binds"] == ["/a:/b:ro", "vol:/c", f"{tmp_path}/rel:/d"]
    assert made["Volumes"] == {"/anon": {}}
    assert made["HostConfig"]["Tmpfs"] == {"/t": "size=1m"}
    assert host(
        "--mount",
        "type=bind,src=./x,dst=/y,ro,bind-propagation=rslave",
        "--mount",
        "src=v,dst=/z,volume-opt=a=b,volume-driver=d,volume-nocopy,volume-label=l=m",
        "--mount",
        "type=tmpfs,dst=/q,tmpfs-size=1m,tmpfs-mode=700",
    )["Mounts"] == [
        {
            "Type": "bind",
            "Source": f"{tmp_path}/x",
            "Target": "/y",
            "ReadOnly": True,
            "BindOptions": {"Propagation": "rslave"},
        },
        {
            "Type": "volume",
            "Source": "v",
            "Target": "/z",
            "VolumeOptions": {
                "DriverConfig": {"Name": "d", "Options": {"a": "b"}},
                "NoCopy": True,
                "Labels": {"l": "m"},
            },
        },
        {"Type": "tmpfs", "Target": "/q", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o700}},
    ]


def test_networks() -> None:
    made = body(
        *"--network foo --ip 1.2.3.4 --ip6 ::1 --network-alias a --link x:y".split(),
        *"--link-local-ip 169.254.1.1 --mac-address 02:42:ac:11:00:02 x".split(),
    )
    assert made["HostConfig"]["NetworkMode"] == "foo"
    assert made["NetworkingConfig"] == {
        "EndpointsConfig": {
            "foo": {
                "IPAMConfig": {
                    "IPv4Address": "1.2.3.4",
                    "IPv6Address": "::1",
                    "LinkLocalIPs": ["169.254.1.1"],
                },
                "Aliases": ["a"],
                "Links": ["x:y"],
                "MacAddress": "02:42:ac:11:00:02",
            }
        }
    }
    several = body("--network", "name=a,alias=b,driver-opt=x=y", "--net", "c", "x")
    assert several["HostConfig"]["NetworkMode"] == "a"
    assert several["NetworkingConfig"]["EndpointsConfig"] == {
        "a": {"Aliases": ["b"], "DriverOpts": {"x": "y"}},
        "c": {},
    }


def test_security(tmp_path: Path) -> None:
    profile = tmp_path / "p.json"
    profile.write_text('{ "defaultAction" : "SCMP_ACT_ALLOW" }')
    made = host(
        *"--cap-add net_admin --cap-add ALL --cap-drop CAP_chown --privileged --read-only".split(),
        "--security-opt",
        f"seccomp={profile}",
        *"--security-opt no-new-privileges --security-opt systempaths=unconfined".split(),
    )
    assert (made["CapAdd"], made["CapDrop"]) == (["ALL", "CAP_NET_ADMIN"], ["CAP_CHOWN"])
    assert made["SecurityOpt"] == ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}', "no-new-privileges"]
    assert (made["MaskedPaths"], made["ReadonlyPaths"]) == ([], [])
    assert "MaskedPaths" not in host()


def test_resources() -> None:
    made = host(
        *"-m 64m --cpus 1.5 --pids-limit 100 --memory-swap -1 --shm-size 1g --oom-score-adj 5".split(),
        *"--ulimit nofile=1:2 --ulimit core=5 --device-read-bps /dev/sda:1mb --blkio-weight 100".split(),
        *"--device /dev/null --device /dev/null:/dev/x:r --device /dev/null:rw".split(),
        "--device-cgroup-rule",
        "c 1:3 rwm",
        "--gpus",
        "all",
    )
    assert (made["Memory"], made["NanoCpus"], made["PidsLimit"]) == (64 << 20, 1_500_000_000, 100)
    assert (made["MemorySwap"], made["ShmSize"], made["BlkioWeight"]) == (-1, 1 << 30, 100)
    assert made["Ulimits"] == [
        {"Name": "core", "Hard": 5, "Soft": 5},
        {"Name": "nofile", "Hard": 2, "Soft": 1},
    ]
    assert made["BlkioDeviceReadBps"] == [{"Path": "/dev/sda", "Rate": 1 << 20}]
    assert made["Devices"] == [
        {"PathOnHost": "/dev/null", "PathInContainer": i, "CgroupPermissions": a}
        for i, a in (("/dev/null", "rwm"), ("/dev/x", "r"), ("/dev/null", "rw"))
    ]
    assert made["DeviceRequests"][0]["Count"] == -1


def test_health_restart_and_logs() -> None:
    made = body("--health-cmd", "true", "--health-interval", "5s", "--health-retries", "3", "x")
    assert made["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5 * 10**9, "Retries": 3}
    made = body("--health-on-failure", "restart", "x")
    assert made["Healthcheck"] == {"OnFailure": "restart"}
    assert body("--no-healthcheck", "x")["Healthcheck"] == {"Test": ["NONE"]}
    assert host("--restart", "on-failure:5")["RestartPolicy"] == {
        "Name": "on-failure",
        "MaximumRetryCount": 5,
    }
    assert host("--log-driver", "local", "--log-opt", "max-size=1m")["LogConfig"] == {
        "Type": "local",
        "Config": {"max-size": "1m"},
    }


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("-p 99999:1", "invalid hostPort: 99999"),
        ("-p 80:81:82:83", "invalid IP address: 80:81"),
        ("-p 80-82:90-95", "invalid ranges specified for container and host Ports: 90-95 and 80-82"),
        ("-p 80/foo", "invalid proto: foo"),
        ("-p 80:", "no port specified: 80:<empty>"),
        (
            "--expose a",
            'invalid range format for --expose: a, error: strconv.ParseUint: parsing "a": invalid syntax',
        ),
        ("--network=", "no name set for network"),
        ("--network a --network a", 'network "a" is specified multiple times'),
        ("--network-alias a", "network-scoped aliases are only supported for user-defined networks"),
        ("--rm --restart always", "conflicting options: cannot specify both --restart and --rm"),
        ("--restart :5", "invalid restart policy format: no policy provided before colon"),
        ("--restart on-failure:x", "invalid restart policy format: maximum retry count must be an integer"),
        ("--pid foo", "--pid: invalid PID mode"),
        ("--memory-swappiness 200", "invalid value: 200. Valid memory swappiness range is 0-100"),
        ("--log-driver none --log-opt a=b", "invalid logging opts for driver none"),
        ("--storage-opt a", "invalid storage option"),
        ("--mac-address zz", "zz is not a valid mac address"),
        ("--no-healthcheck --health-cmd a", "--no-healthcheck conflicts with --health-* options"),
        (
            "--security-opt seccomp=/nope",
            "opening seccomp profile (/nope) failed: open /nope: no such file or directory",
        ),
        ("--security-opt foo", 'Invalid --security-opt: "foo"'),
        ("--env-file /nope", "open /nope: no such file or directory"),
        ("-v a:b:c:d", "invalid spec: a:b:c:d: too many colons"),
        ("--device null", "null is not an absolute path"),
        ("--device /dev/null:/x:q", "bad mode specified: q"),
    ],
)
def test_options_that_cannot_be(argv: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        host(*argv.split())
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        ("--mount foo", "invalid field 'foo' must be a key=value pair"),
        ("--mount type=bind", "target is required"),
        ("--mount dst=/x,foo=bar", "unexpected key 'foo' in 'foo=bar'"),
        ("--mount dst=/x,bind-propagation=shared", "cannot mix 'bind-*' options with mount type 'volume'"),
        ("-a foo", "valid streams are STDIN, STDOUT and STDERR"),
        ("--ulimit foo", "invalid ulimit argument: foo"),
        ("--ulimit nofile=5:2", "ulimit soft limit must be less than or equal to hard limit: 5 > 2"),
        ("--add-host zz", 'bad format for add-host: "zz"'),
        ("--dns zz", "IP address is not correctly formatted: zz"),
        ("--sysctl a=b", "sysctl 'a=b' is not allowed"),
        ("--link a:b:c", "bad format for links: a:b:c"),
        ("--device-read-bps a", "bad format: a"),
        ("--device-cgroup-rule zz", "invalid device cgroup format 'zz'"),
        ("--gpus zz", 'invalid count (zz): value must be either "all" or an integer: invalid syntax'),
        ("--blkio-weight 99999", 'strconv.ParseUint: parsing "99999": value out of range'),
    ],
)
def test_values_that_cannot_be(argv: str, reason: str) -> None:
    with pytest.raises(FlagError) as caught:
        host(*argv.split())
    assert caught.value.message.endswith(f"flag: {reason}")


@pytest.mark.parametrize(
    "flag", ["--cpu-count=2", "--cpu-percent=2", "--io-maxbandwidth=2m", "--io-maxiops=2"]
)
def test_flags_for_windows_are_refused_by_name(flag: str) -> None:
    with pytest.raises(Failure) as caught:
        body(flag, "x")
    name = flag.partition("=")[0]
    assert caught.value.text.startswith(f'"{name}" is only supported on a Docker daemon running on windows')


@pytest.mark.parametrize(
    ("field", "member", "options"),
    [
        ("create-mountpoint", "BindOptions", {"CreateMountpoint": True}),
        ("bind-create-mountpoint=false", "BindOptions", {"CreateMountpoint": False}),
        ("bind-create-src", "BindOptions", {"CreateMountpoint": True}),
        ("tmpfs-options=noexec", "TmpfsOptions", {"Options": [["noexec"]]}),
        (
            '"tmpfs-options=noexec,size=1m",tmpfs-options=uid=5',
            "TmpfsOptions",
            {"Options": [["noexec"], ["size", "1m"], ["uid", "5"]]},
        ),
        (
            "ro,bind-recursive=readonly,bind-propagation=rprivate",
            "BindOptions",
            {"ReadOnlyForceRecursive": True, "Propagation": "rprivate"},
        ),
    ],
)
def test_options_of_mounts(field: str, member: str, options: dict[str, Any]) -> None:
    kind = "tmpfs" if member == "TmpfsOptions" else "bind"
    assert host("--mount", f"type={kind},dst=/b,{field}")["Mounts"][0][member] == options


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("bind-recursive=readonly", "requires 'readonly'"),
        ("bind-recursive=writable", "requires 'readonly'"),
        ("ro,bind-recursive=readonly", "requires 'bind-propagation=rprivate'"),
        ("ro,bind-recursive=readonly,bind-propagation=shared", "requires 'bind-propagation=rprivate'"),
        ("bind-recursive=", "invalid value for bind-recursive: "),
        ("tmpfs-options=noexec", "cannot mix 'tmpfs-*' options with mount type 'bind'"),
    ],
)
def test_options_of_mounts_that_contradict(field: str, message: str) -> None:
    with pytest.raises(FlagError, match=message.replace("*", r"\*")):
        host("--mount", f"type=bind,src=/a,dst=/b,{field}")


def test_devices_that_vendors_describe_are_told_from_paths() -> None:
    found = host("--device", "vendor.com/class=name", "--device", "/dev/a=b")
    assert found["DeviceRequests"] == [{"Driver": "cdi", "DeviceIDs": ["vendor.com/class=name"]}]
    assert found["Devices"][0]["PathOnHost"] == "/dev/a=b"
    with pytest.raises(InvalidArgument, match="a=b is not an absolute path"):
        host("--device", "a=b")
