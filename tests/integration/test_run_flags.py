"""``docker run`` against the daemon: exit codes, and every flag seen from inside the container."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from daemonlab import LabDaemon, wait_until

pytestmark = pytest.mark.kernel


def sh(daemon: LabDaemon, script: str, *flags: str, image: str = "busybox") -> str:
    return daemon.docker("run", "--rm", *flags, image, "sh", "-c", script).ok()


# ---- exit codes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 7, 255])
def test_the_containers_own_exit_code(daemon: LabDaemon, code: int) -> None:
    done = daemon.docker("run", "--rm", "busybox", "sh", "-c", f"echo hi; exit {code}")
    assert (done.code, done.out) == (code, "hi")
    assert daemon.containers() == []


def test_both_streams_arrive_apart(daemon: LabDaemon) -> None:
    done = daemon.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (done.out, done.errors.strip()) == ("out", "err")


def test_127_for_a_command_that_is_not_there(daemon: LabDaemon) -> None:
    done = daemon.docker("run", "--rm", "busybox", "no-such-program")
    assert done.code == 127
    assert 'exec: "no-such-program": executable file not found in $PATH' in done.errors
    assert daemon.containers() == []


def test_127_for_a_path_that_is_not_there(daemon: LabDaemon) -> None:
    assert daemon.docker("run", "--rm", "busybox", "/no/such/file").code == 127


@pytest.mark.parametrize("command", ["/etc", "/etc/passwd"])
def test_126_for_what_cannot_run(daemon: LabDaemon, command: str) -> None:
    done = daemon.docker("run", "--rm", "busybox", command)
    assert done.code == 126, done.errors
    assert "permission denied" in done.errors or "is a directory" in done.errors


def test_a_failed_start_leaves_a_created_container(daemon: LabDaemon, name: str) -> None:
    assert daemon.docker("run", "--name", name, "busybox", "no-such-program").code == 127
    state = daemon.state_of(name)
    assert (state["Status"], state["ExitCode"]) == ("created", 127)
    assert "not found" in state["Error"]


def test_125_for_what_the_daemon_refuses(daemon: LabDaemon, name: str) -> None:
    assert daemon.docker("run", "--name", "bad/name", "busybox").code == 125
    assert daemon.docker("run", "--pull", "never", "no-such-image").code == 125
    daemon.docker("create", "--name", name, "busybox").ok()
    again = daemon.docker("run", "--name", name, "busybox", "true")
    assert again.code == 125
    assert f'The container name "/{name}" is already in use by container' in again.errors


def test_137_when_killed(daemon: LabDaemon) -> None:
    done = daemon.docker("run", "--rm", "--init", "busybox", "sh", "-c", "kill -9 $$")
    assert done.code == 137


def test_kill_from_outside_gives_137(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
    daemon.docker("kill", name).ok()
    assert daemon.docker("wait", name).ok() == "137"


# ---- how it runs -----------------------------------------------------------------------------------------


def test_detached_prints_the_id(daemon: LabDaemon) -> None:
    identifier = daemon.docker("run", "-d", "busybox", "true").ok()
    assert re.fullmatch(r"[0-9a-f]{64}", identifier)
    assert daemon.docker("wait", identifier).ok() == "0"


def test_detached_with_rm_removes_itself(daemon: LabDaemon) -> None:
    identifier = daemon.docker("run", "-d", "--rm", "busybox", "true").ok()
    wait_until(lambda: identifier not in daemon.containers())


def test_five_megabytes_through_cat_and_back(daemon: LabDaemon) -> None:
    data = os.urandom(5 << 20)
    done = daemon.docker("run", "-i", "--rm", "busybox", "cat", input=data)
    assert done.code == 0, done.errors
    assert done.raw == data


def test_stdin_without_i_is_empty(daemon: LabDaemon) -> None:
    assert daemon.docker("run", "--rm", "busybox", "cat", input=b"lost").ok() == ""


def test_environment(daemon: LabDaemon, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\nFROM_FILE=two words\nOVER=file\n")
    out = sh(daemon, "env", "-e", "A=1", "-e", "EMPTY=", "--env-file", str(file), "-e", "OVER=flag")
    lines = out.splitlines()
    assert {"A=1", "EMPTY=", "FROM_FILE=two words", "OVER=flag", "HOME=/root"} <= set(lines)
    assert any(line.startswith("PATH=/usr/local/sbin") for line in lines)
    assert any(re.fullmatch("HOSTNAME=[0-9a-f]{12}", line) for line in lines)


def test_working_directory_is_made(daemon: LabDaemon) -> None:
    out = sh(daemon, "pwd; stat -c %u:%g .", "-w", "/a/b/c", "-u", "1000:1001")
    assert out.split() == ["/a/b/c", "1000:1001"]


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "0:0"),
        ("nobody", "65534:65534"),
        ("1234", "1234:0"),
        ("1234:4321", "1234:4321"),
        ("nobody:root", "65534:0"),
    ],
)
def test_users(daemon: LabDaemon, user: str, expected: str) -> None:
    flags = ("-u", user) if user else ()
    assert sh(daemon, "echo $(id -u):$(id -g)", *flags) == expected


def test_an_unknown_user_is_refused_by_name(daemon: LabDaemon) -> None:
    done = daemon.docker("run", "--rm", "-u", "who", "busybox", "true")
    assert done.code == 125
    assert "unable to find user who: no matching entries in passwd file" in done.errors


@pytest.mark.parametrize("user", ["4294967296", "2147483648", "0:4294967296", "99999999999999999999"])
def test_an_overflowing_id_is_not_root(daemon: LabDaemon, user: str) -> None:
    done = daemon.docker("run", "--rm", "-u", user, "busybox", "id", "-u")
    assert done.code == 125
    assert "uids and gids must be in range" in done.errors


def test_hostname_and_hosts(daemon: LabDaemon) -> None:
    out = sh(daemon, "hostname; cat /etc/hostname /etc/hosts", "-h", "box", "--add-host", "far:192.0.2.7")
    lines = out.splitlines()
    assert lines[:2] == ["box", "box"]
    assert "192.0.2.7\tfar" in lines
    assert re.search(r"^172\.\d+\.\d+\.\d+\tbox$", out, re.MULTILINE) or "box" in lines[-1]


def test_entrypoint(daemon: LabDaemon) -> None:
    done = daemon.docker("run", "--rm", "--entrypoint", "echo", "busybox", "a", "b")
    assert done.ok() == "a b"


def test_labels_and_cidfile(daemon: LabDaemon, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    daemon.docker("run", "-l", "a=1", "-l", "b", "--cidfile", str(file), "busybox", "true").ok()
    inspect = daemon.api("GET", f"/containers/{file.read_text()}/json").json
    assert inspect["Config"]["Labels"] == {"a": "1", "b": ""}


def test_init_reaps(daemon: LabDaemon) -> None:
    assert "docker-init" in sh(daemon, "cat /proc/1/cmdline | tr '\\0' ' '", "--init")


def test_read_only_root(daemon: LabDaemon) -> None:
    out = sh(
        daemon,
        "touch /x 2>&1; touch /tmp/y && echo tmp ok",
        "--read-only",
        "--tmpfs",
        "/tmp:size=1m,mode=1777",
    )
    assert "Read-only file system" in out
    assert "tmp ok" in out


def test_privileged(daemon: LabDaemon) -> None:
    out = sh(daemon, "mount -t tmpfs x /tmp && echo mounted; grep CapEff /proc/self/status", "--privileged")
    assert "mounted" in out
    plain = sh(daemon, "mount -t tmpfs x /tmp 2>/dev/null || echo refused; grep CapEff /proc/self/status")
    assert "refused" in plain
    assert "00000000a80425fb" in plain


def test_capabilities(daemon: LabDaemon) -> None:
    assert sh(daemon, "chown 1 /tmp 2>/dev/null || echo no", "--cap-drop", "CHOWN") == "no"
    out = sh(daemon, "grep CapEff /proc/self/status", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN")
    assert out.split()[-1] == f"{1 << 12:016x}"
    done = daemon.docker("run", "--rm", "--cap-add", "NO_SUCH", "busybox", "true")
    assert done.code == 125
    assert "NO_SUCH" in done.errors


def test_devices(daemon: LabDaemon) -> None:
    out = sh(
        daemon, "ls -l /dev/seventh; head -c 2 /dev/seventh | wc -c", "--device", "/dev/zero:/dev/seventh"
    )
    assert out.startswith("crw")
    assert out.endswith("2")
    done = daemon.docker("run", "--rm", "--device", "/dev/no-such", "busybox", "true")
    assert done.code == 127  # the client's reading of "no such file or directory"
    assert 'error gathering device information while adding custom device "/dev/no-such"' in done.errors


def test_device_permissions(daemon: LabDaemon) -> None:
    """Seen on a device that containers do not have by default."""
    script = "exec 3</dev/x && echo readable; (exec 4>/dev/x) 2>&1 && echo writable || true"
    device = "/dev/net/tun" if Path("/dev/net/tun").exists() else "/dev/loop-control"
    out = sh(daemon, script, "--device", f"{device}:/dev/x:r")
    assert "readable" in out
    assert "not permitted" in out
    assert "writable" in sh(daemon, script, "--device", f"{device}:/dev/x:rw")


def test_ulimits(daemon: LabDaemon) -> None:
    assert sh(daemon, "ulimit -n; ulimit -Hn", "--ulimit", "nofile=100:200").split() == ["100", "200"]
    done = daemon.docker("run", "--rm", "--ulimit", "nofile=9999999:9999999999", "busybox", "true")
    assert done.code == 125
    assert "nofile" in done.errors


def test_memory_limit_and_oom(daemon: LabDaemon, name: str) -> None:
    script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes 2>/dev/null || cat memory.max"
    assert sh(daemon, script, "-m", "32m") == str(32 << 20)
    script = "x=a; while true; do x=$x$x; done"
    done = daemon.docker(
        "run", "--name", name, "-m", "12m", "--memory-swap", "12m", "busybox", "sh", "-c", script
    )
    assert done.code == 137
    assert daemon.state_of(name)["OOMKilled"] is True
    small = daemon.docker("run", "--rm", "-m", "1m", "busybox", "true")
    assert small.code == 125
    assert "Minimum memory limit allowed is 6MB" in small.errors


def test_cpu_and_pids_limits(daemon: LabDaemon) -> None:
    v1 = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/pids/pids.max"
    v2 = "cut -d' ' -f1 /sys/fs/cgroup/cpu.max; cat /sys/fs/cgroup/pids.max"
    out = sh(daemon, f"{v1} 2>/dev/null || ({v2})", "--cpus", "0.5", "--pids-limit", "20")
    assert out.split() == ["50000", "20"]
    done = daemon.docker("run", "--rm", "--cpus", "1000", "busybox", "true")
    assert done.code == 125
    assert "range of CPUs is from 0.01 to" in done.errors


def test_shared_memory(daemon: LabDaemon) -> None:
    assert sh(daemon, "df -k /dev/shm | tail -1").split()[1] == "65536"
    assert sh(daemon, "df -k /dev/shm | tail -1", "--shm-size", "1m").split()[1] == "1024"


def test_stop_signal_and_timeout(daemon: LabDaemon, name: str) -> None:
    script = "trap 'exit 42' USR1; trap '' TERM; echo ready; while :; do sleep 0.05; done"
    flags = ("--stop-signal", "USR1", "--stop-timeout", "15")
    daemon.docker("run", "-d", "--name", name, *flags, "busybox", "sh", "-c", script).ok()
    wait_until(lambda: daemon.docker("logs", name).out == "ready")
    daemon.docker("stop", name).ok()
    assert daemon.state_of(name)["ExitCode"] == 42
    config = daemon.api("GET", f"/containers/{name}/json").json["Config"]
    assert (config["StopSignal"], config["StopTimeout"]) == ("USR1", 15)


def test_stop_kills_after_its_timeout(daemon: LabDaemon, name: str) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    daemon.docker("run", "-d", "--name", name, "busybox", "sh", "-c", script).ok()
    wait_until(lambda: daemon.docker("logs", name).out == "ready")
    daemon.docker("stop", "-t", "0", name).ok()
    assert daemon.state_of(name)["ExitCode"] == 137


def test_sysctl(daemon: LabDaemon) -> None:
    assert sh(daemon, "cat /proc/sys/net/ipv4/ip_forward", "--sysctl", "net.ipv4.ip_forward=1") == "1"
    body = {"Image": "busybox", "HostConfig": {"Sysctls": {"kernel.panic": "1"}}}
    identifier = daemon.api("POST", "/containers/create", body).json["Id"]
    answer = daemon.api("POST", f"/containers/{identifier}/start")
    assert (answer.status, answer.message) == (400, "sysctl 'kernel.panic' is not allowed")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--gpus", "all"), "could not select device driver"),
        (("--link", "x"), "could not get container for x"),
        (("--storage-opt", "size=1g"), "--storage-opt size is not"),
        (("--log-driver", "splunk"), "splunk"),
        (("--cpu-rt-runtime", "1000"), "real-time"),
        (("--volume-driver", "nfs", "-v", "some:/v"), 'plugin "nfs" not found'),
    ],
)
def test_what_is_not_there_is_refused_by_name(daemon: LabDaemon, flags: tuple[str, ...], words: str) -> None:
    done = daemon.docker("run", "--rm", *flags, "busybox", "true")
    assert done.code == 125
    assert words in done.errors


# ---- mounts ----------------------------------------------------------------------------------------------


def test_bind_mounts(daemon: LabDaemon, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("host")
    flags = ("-v", f"{tmp_path}:/data", "-v", f"{tmp_path}:/ro:ro")
    out = sh(daemon, "cat /data/f; echo new > /data/g; touch /ro/h 2>&1 || true", *flags)
    assert out.startswith("host")
    assert "Read-only file system" in out
    assert (tmp_path / "g").read_text() == "new\n"


def test_v_makes_a_missing_source_and_mount_does_not(daemon: LabDaemon, tmp_path: Path) -> None:
    missing = tmp_path / "made"
    sh(daemon, "true", "-v", f"{missing}:/d")
    assert missing.is_dir()
    missing = tmp_path / "not-made"
    done = daemon.docker("run", "--rm", "--mount", f"type=bind,src={missing},dst=/d", "busybox", "true")
    assert done.code == 125
    assert "bind source path does not exist" in done.errors
    assert not missing.exists()


def test_a_single_file_can_be_mounted(daemon: LabDaemon, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    assert sh(daemon, "cat /etc/one", "--mount", f"type=bind,src={tmp_path}/one,dst=/etc/one,readonly") == "1"


def test_named_volume_is_kept_and_filled_from_the_image(daemon: LabDaemon, name: str) -> None:
    out = sh(daemon, "ls /etc | grep -c passwd; echo kept > /etc/kept", "-v", f"{name}:/etc")
    assert out == "1"
    assert sh(daemon, "cat /v/kept", "--mount", f"type=volume,src={name},dst=/v") == "kept"
    empty = f"{name}e"
    assert sh(daemon, "ls /etc | grep -c passwd || true", "-v", f"{empty}:/etc:nocopy") == "0"


def test_anonymous_volumes_go_with_rm_and_stay_without(daemon: LabDaemon, name: str) -> None:
    before = daemon.volumes()
    sh(daemon, "touch /data/x", "-v", "/data")
    assert daemon.volumes() == before
    daemon.docker("run", "--name", name, "-v", "/data", "busybox", "true").ok()
    assert len(daemon.volumes() - before) == 1
    daemon.docker("rm", name).ok()
    assert len(daemon.volumes() - before) == 1


def test_volumes_from(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "-v", "/shared", "-v", f"{name}:/named", "busybox").ok()
    sh(daemon, "echo a > /shared/f; echo b > /named/f", "--volumes-from", name)
    out = sh(daemon, "cat /shared/f /named/f; touch /shared/g 2>&1 || true", "--volumes-from", f"{name}:ro")
    assert out.splitlines()[:2] == ["a", "b"]
    assert "Read-only" in out


def test_tmpfs_mount(daemon: LabDaemon) -> None:
    out = sh(daemon, "df -k /t | tail -1", "--mount", "type=tmpfs,dst=/t,tmpfs-size=2m")
    assert out.split()[1] == "2048"


def test_an_image_is_mounted_read_only(daemon: LabDaemon) -> None:
    mount = "type=image,src=busybox,dst=/i,image-subpath=etc"
    out = sh(daemon, "ls /i/passwd; touch /i/x 2>&1; umount /i 2>&1; true", "--mount", mount)
    assert out.splitlines()[0] == "/i/passwd"
    assert "Read-only" in out


def test_a_part_of_a_volume(daemon: LabDaemon, name: str) -> None:
    volume = f"{name}-v"
    sh(daemon, "mkdir -p /v/a/b; echo in > /v/a/b/f; ln -s / /v/out; ln -s a /v/link", "-v", f"{volume}:/v")
    part = f"type=volume,src={volume},dst=/p,volume-subpath="
    assert sh(daemon, "cat /p/f", "--mount", f"{part}a/b") == "in"
    assert sh(daemon, "cat /p/b/f", "--mount", f"{part}link") == "in"
    done = daemon.docker("run", "--rm", "--mount", f"{part}out/etc", "busybox", "true")
    assert done.code == 125
    assert "it leaves it" in done.errors


def test_read_only_binds_are_so_all_the_way_down(daemon: LabDaemon, tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(below)], check=True)
    try:
        touch = "touch /m/below/x 2>&1; true"
        assert "Read-only" in sh(daemon, touch, "-v", f"{tmp_path}:/m:ro")
        writable = f"type=bind,src={tmp_path},dst=/m,readonly,bind-recursive=writable"
        assert sh(daemon, touch, "--mount", writable) == ""
    finally:
        subprocess.run(["umount", str(below)], check=True)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("type=bind,src=/tmp,dst=relative", "must be absolute"),
        ("type=volume,dst=/", "destination can't be '/'"),
        ("type=image,src=no-such-image,dst=/i", "No such image"),
        ("type=image,src=busybox,dst=/i,image-subpath=no/such", "cannot access path no/such"),
        ("type=volume,src=vol,dst=/v,volume-subpath=../x", "relative path within the volume"),
    ],
)
def test_bad_mounts(daemon: LabDaemon, flag: str, words: str) -> None:
    done = daemon.docker("run", "--rm", "--mount", flag, "busybox", "true")
    assert done.code == 125
    assert words in done.errors


def test_a_destination_twice_is_refused(daemon: LabDaemon) -> None:
    done = daemon.docker("run", "--rm", "-v", "/tmp:/d", "-v", "/var:/d", "busybox", "true")
    assert done.code == 125
    assert "Duplicate mount point: /d" in done.errors
