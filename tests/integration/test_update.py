"""``update``: limits as the kernel has them; mounts, devices and ports that come and go in what runs."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from daemonlab import LabDaemon, wait_until
from freeports import free_port
from patience import patiently

pytestmark = pytest.mark.kernel

FUSE = Path("/dev/fuse")


@pytest.fixture
def running(daemon: LabDaemon, name: str) -> str:
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
    return name


def update(daemon: LabDaemon, container: str, **members: Any) -> None:
    answer = daemon.api("POST", f"/containers/{container}/update", members)
    assert answer.status == 200, answer.body


def refused(daemon: LabDaemon, container: str, **members: Any) -> str:
    answer = daemon.api("POST", f"/containers/{container}/update", members)
    assert answer.status >= 400
    return answer.message


def inside(daemon: LabDaemon, container: str, script: str) -> str:
    return daemon.docker("exec", container, "sh", "-c", script).ok()


def cgroup(daemon: LabDaemon, container: str, controller: str, file: str) -> str:
    full = daemon.api("GET", f"/containers/{container}/json").json["Id"]
    for root in (f"/sys/fs/cgroup/{controller}", "/sys/fs/cgroup"):
        path = Path(root) / daemon.cgroup / full / file
        if path.exists():
            return path.read_text().strip()
    raise AssertionError(f"no {file}")


def limits(daemon: LabDaemon, container: str) -> dict[str, str]:
    """What the kernel has of memory (and of it with swap), processor time and processes."""

    def read(controller: str, file: str) -> str:
        return cgroup(daemon, container, controller, file)

    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        memory, swap = int(read("memory", "memory.max")), int(read("memory", "memory.swap.max"))
        weight, (quota, _) = read("cpu", "cpu.weight"), read("cpu", "cpu.max").split()
        # the runtime's scale, which has changed once: any weight but the kernel's own will do
        shares = "300" if 1 < int(weight) < 100 else weight
        amounts: tuple[str, ...] = (str(memory), str(memory + swap), quota, shares)
    else:
        files = "memory.limit_in_bytes memory.memsw.limit_in_bytes cpu.cfs_quota_us cpu.shares"
        amounts = tuple(read(file.partition(".")[0], file) for file in files.split())
    names = ("memory", "and swap", "quota", "shares", "pids")
    return dict(zip(names, (*amounts, read("pids", "pids.max")), strict=True))


# ---- limits ----------------------------------------------------------------------------------------------


def test_the_kernel_has_the_new_limits(daemon: LabDaemon, running: str) -> None:
    flags = (
        "-m",
        "128m",
        "--memory-swap",
        "256m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "50",
        "--cpu-shares",
        "300",
    )
    assert daemon.docker("update", *flags, running).ok() == running
    found = limits(daemon, running)
    assert (found["memory"], found["and swap"]) == (str(128 << 20), str(256 << 20))
    assert (found["quota"], found["shares"], found["pids"]) == ("50000", "300", "50")
    daemon.docker("update", "-m", "64m", "--memory-swap", "64m", "--pids-limit", "-1", running).ok()
    found = limits(daemon, running)
    assert (found["memory"], found["and swap"]) == (str(64 << 20), str(64 << 20))
    assert found["pids"] == "max"
    host = daemon.api("GET", f"/containers/{running}/json").json["HostConfig"]
    assert (host["Memory"], host["NanoCpus"]) == (64 << 20, 5 * 10**8)


def test_limits_of_a_stopped_container_come_with_its_start(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "busybox", "sleep", "1000").ok()
    daemon.docker("update", "--pids-limit", "33", name).ok()
    daemon.docker("start", name).ok()
    assert cgroup(daemon, name, "pids", "pids.max") == "33"


def test_what_the_kernel_refuses_changes_nothing(daemon: LabDaemon, running: str, tmp_path: Path) -> None:
    nowhere = tmp_path / "disk"
    os.mknod(nowhere, 0o600 | stat.S_IFBLK, os.makedev(240, 77))
    daemon.docker("update", "--pids-limit", "40", running).ok()
    # It has no device with this number, so it has no limit for it either.
    unknown = [{"Path": str(nowhere), "Rate": 1000}]
    assert "cannot update limits" in refused(daemon, running, BlkioDeviceReadBps=unknown, PidsLimit=60)
    assert cgroup(daemon, running, "pids", "pids.max") == "40"
    assert daemon.api("GET", f"/containers/{running}/json").json["HostConfig"]["PidsLimit"] == 40


def test_contradictions_are_refused_in_dockers_words(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, "--cpus", "1", "-m", "32m", "busybox", "sleep", "100").ok()
    assert "NanoCPUs has already been set" in refused(daemon, name, CpuQuota=5000)
    assert "update the memoryswap at the same time" in refused(daemon, name, Memory=1 << 30)
    assert "Minimum memory limit allowed is 6MB" in refused(daemon, name, Memory=1)
    assert "cannot update Ulimits" in refused(
        daemon, name, Ulimits=[{"Name": "nofile", "Soft": 1, "Hard": 1}]
    )
    assert "unknown policy" in refused(daemon, name, RestartPolicy={"Name": "sometimes"})


def test_a_new_restart_policy_holds_at_once(daemon: LabDaemon, running: str) -> None:
    daemon.docker("update", "--restart", "on-failure:3", running).ok()
    os.kill(daemon.pid_of(running), 9)
    wait_until(lambda: daemon.state_of(running)["Status"] == "running")
    assert "update" in daemon.actions(container=[running])


def test_no_restart_policy_for_what_removes_itself(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--rm", "--name", name, "busybox", "sleep", "100").ok()
    assert "AutoRemove is enabled" in refused(daemon, name, RestartPolicy={"Name": "always"})


# ---- mounts ----------------------------------------------------------------------------------------------


def bind(source: Path, target: str, **more: Any) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target, **more}


def test_a_bind_comes_goes_and_outlives_a_restart(daemon: LabDaemon, running: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here\n")
    update(daemon, running, MountsAdd=[bind(tmp_path, "/new/place")])
    assert inside(daemon, running, "cat /new/place/file") == "here"
    inside(daemon, running, "echo back > /new/place/answer")
    assert (tmp_path / "answer").read_text() == "back\n"
    daemon.docker("restart", "-t", "0", running).ok()
    assert inside(daemon, running, "cat /new/place/file") == "here"
    update(daemon, running, MountsRemove=["/new/place"])
    assert inside(daemon, running, "ls /new/place") == ""
    daemon.docker("restart", "-t", "0", running).ok()
    assert inside(daemon, running, "ls /new/place") == ""
    assert daemon.api("GET", f"/containers/{running}/json").json["Mounts"] == []


def test_read_only_goes_all_the_way_down(daemon: LabDaemon, running: str, tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(below)], check=True)
    try:
        update(daemon, running, MountsAdd=[bind(tmp_path, "/m", ReadOnly=True)])
        assert (
            inside(daemon, running, "touch /m/a /m/below/b 2>&1; ls /m/below; true").count("Read-only") == 2
        )
        update(
            daemon,
            running,
            MountsRemove=["/m"],
            MountsAdd=[bind(tmp_path, "/m", ReadOnly=True, BindOptions={"ReadOnlyNonRecursive": True})],
        )
        assert inside(daemon, running, "touch /m/a /m/below/b 2>&1; ls /m/below").splitlines()[-1] == "b"
    finally:
        update(daemon, running, MountsRemove=["/m"])
        subprocess.run(["umount", str(below)], check=True)


def test_volumes_tmpfs_and_images(daemon: LabDaemon, running: str, name: str) -> None:
    volume = f"{name}-data"
    update(
        daemon,
        running,
        MountsAdd=[
            {"Type": "volume", "Source": volume, "Target": "/v"},
            {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o700}},
            {"Type": "image", "Source": "busybox", "Target": "/i", "ImageOptions": {"Subpath": "bin"}},
        ],
    )
    inside(daemon, running, "echo kept > /v/file")
    assert "size=1024k,mode=700" in inside(daemon, running, "grep ' /t ' /proc/mounts")
    assert "sh" in inside(daemon, running, "ls /i").split()
    assert "Read-only" in inside(daemon, running, "touch /i/x 2>&1; true")
    assert daemon.api("DELETE", f"/volumes/{volume}").status == 409
    update(daemon, running, MountsRemove=["/v", "/t", "/i"])
    assert daemon.docker("run", "--rm", "-v", f"{volume}:/x", "busybox", "cat", "/x/file").ok() == "kept"
    assert daemon.api("DELETE", f"/volumes/{volume}").status == 204


def test_a_single_file(daemon: LabDaemon, running: str, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("file\n")
    update(daemon, running, MountsAdd=[bind(tmp_path / "one", "/etc/one.conf")])
    assert inside(daemon, running, "cat /etc/one.conf") == "file"
    assert "wrong kind" in refused(daemon, running, MountsAdd=[bind(tmp_path, "/etc/passwd")])


def test_a_link_in_the_container_leads_nowhere_else(daemon: LabDaemon, running: str, tmp_path: Path) -> None:
    """The hostile container replaces the parents of the place, before and after."""
    (tmp_path / "file").write_text("mine\n")
    inside(daemon, running, "ln -s /proc/1 /trap; ln -s ../../../../../.. /up; ln -s /nowhere /dangling")
    assert "procfs" in refused(daemon, running, MountsAdd=[bind(tmp_path, "/trap/task")])
    assert "cross-device" in refused(daemon, running, MountsAdd=[bind(tmp_path, "/trap/cwd")])
    assert "exists" in refused(daemon, running, MountsAdd=[bind(tmp_path, "/dangling")])
    update(daemon, running, MountsAdd=[bind(tmp_path, f"/up{tmp_path}")])
    assert inside(daemon, running, f"cat {tmp_path}/file") == "mine"
    assert os.listdir(tmp_path) == ["file"]
    inside(daemon, running, f"mkdir -p /real/interrupts && rm /up && ln -s /proc /up; mkdir -p {tmp_path}")
    assert refused(daemon, running, MountsRemove=[f"/up{tmp_path}"])
    update(daemon, running, MountsAdd=[bind(tmp_path, "/real/interrupts")])
    inside(daemon, running, "mv /real /other && ln -s /proc /real")
    assert "own" in refused(daemon, running, MountsRemove=["/real/interrupts"])
    # The mask over interrupts still stands.
    assert inside(daemon, running, "wc -c < /proc/interrupts") == "0"


def test_all_or_none(daemon: LabDaemon, running: str, tmp_path: Path) -> None:
    message = refused(
        daemon,
        running,
        MountsAdd=[bind(tmp_path, "/one"), bind(tmp_path / "missing", "/two")],
        PublishAdd={"80/tcp": [{"HostPort": ""}]},
    )
    assert "bind source path does not exist" in message
    assert "/one" not in inside(daemon, running, "cat /proc/mounts")
    document = daemon.api("GET", f"/containers/{running}/json").json
    assert (document["Mounts"], document["HostConfig"]["PortBindings"]) == ([], {})


def test_a_duplicate_place(daemon: LabDaemon, running: str, tmp_path: Path) -> None:
    update(daemon, running, MountsAdd=[bind(tmp_path, "/a")])
    assert "Duplicate mount point: /a" in refused(daemon, running, MountsAdd=[bind(tmp_path, "/a/")])
    assert "none there" in refused(daemon, running, MountsRemove=["/b"])


# ---- devices ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(not FUSE.exists(), reason="no /dev/fuse")
def test_a_device_comes_and_goes(daemon: LabDaemon, running: str) -> None:
    mapping = {"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm"}
    number = os.stat(FUSE).st_rdev
    knock = f"mknod /k c {os.major(number)} {os.minor(number)}; (: < /k) && echo open; rm /k"
    assert "open" not in inside(daemon, running, knock)
    update(daemon, running, DevicesAdd=[mapping])
    assert inside(daemon, running, ": < /dev/fuse && echo open") == "open"
    daemon.docker("restart", "-t", "0", running).ok()
    assert inside(daemon, running, ": < /dev/fuse && echo open") == "open"
    update(daemon, running, DevicesRemove=["/dev/fuse"])
    assert "open" not in inside(daemon, running, f"ls /dev/fuse; {knock}")


def test_a_device_that_is_not_there(daemon: LabDaemon, running: str) -> None:
    message = refused(daemon, running, DevicesAdd=[{"PathOnHost": "/dev/no-such-device"}])
    assert "no such file or directory" in message
    assert "was not given it" in refused(daemon, running, DevicesRemove=["/dev/null"])


# ---- ports -----------------------------------------------------------------------------------------------


def page(port: int, host: str = "127.0.0.1") -> bytes:
    try:
        with socket.create_connection((host, port), timeout=patiently(2)) as s:
            s.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
            return s.makefile("rb").read().rpartition(b"\r\n\r\n")[2]
    except OSError:
        return b""


def test_ports_come_and_go(daemon: LabDaemon, name: str) -> None:
    script = "mkdir /w; echo page > /w/index.html; exec httpd -f -p 80 -h /w"
    daemon.docker("run", "-d", "--name", name, "busybox", "sh", "-c", script).ok()
    first, second = free_port(), free_port()
    update(daemon, name, PublishAdd={"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(first)}]})
    wait_until(lambda: page(first) == b"page\n")
    update(daemon, name, PublishAdd={"80/tcp": [{"HostPort": str(second)}]})
    wait_until(lambda: page(second) == b"page\n")
    assert "already allocated" in refused(daemon, name, PublishAdd={"80/tcp": [{"HostPort": str(first)}]})
    update(daemon, name, PublishRemove=[str(first)])
    assert page(first) == b""
    assert page(second) == b"page\n"
    assert daemon.docker("port", name).ok() == f"80/tcp -> 0.0.0.0:{second}"
    daemon.docker("restart", "-t", "0", name).ok()
    wait_until(lambda: page(second) == b"page\n")
    with socket.socket() as s:  # the host has it back
        s.bind(("127.0.0.1", first))


def test_ports_of_a_stopped_container(daemon: LabDaemon, name: str) -> None:
    port = free_port()
    daemon.docker("create", "--name", name, "-p", f"{port}:80", "-p", "81", "busybox", "sleep", "99").ok()
    assert "does not publish" in refused(daemon, name, PublishRemove=[f"{port}/udp"])
    update(daemon, name, PublishRemove=[str(port)], PublishAdd={"82": [{}]})
    bindings = daemon.api("GET", f"/containers/{name}/json").json["HostConfig"]["PortBindings"]
    assert sorted(bindings) == ["81/tcp", "82/tcp"]
    daemon.docker("start", name).ok()
    assert sorted(daemon.docker("port", name).ok().split()[::3]) == ["81/tcp", "82/tcp"]


def test_no_ports_without_a_network_of_its_own(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, "--network", "none", "busybox", "sleep", "99").ok()
    assert "no network of its own" in refused(daemon, name, PublishAdd={"80": [{}]})


def test_published_ports_outlive_the_daemon(daemon: LabDaemon, name: str) -> None:
    port = free_port()
    script = "mkdir /w; echo page > /w/index.html; exec httpd -f -p 80 -h /w"
    daemon.docker("run", "-d", "--name", name, "busybox", "sh", "-c", script).ok()
    update(daemon, name, PublishAdd={"80/tcp": [{"HostPort": str(port)}]})
    daemon.restart(9)
    wait_until(lambda: page(port) == b"page\n")
    update(daemon, name, PublishRemove=[str(port)])
    assert page(port) == b""
