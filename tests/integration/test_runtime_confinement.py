"""What a container may not do by default: each attempt is made from inside, and refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from daemonlab import LabDaemon

pytestmark = pytest.mark.kernel

ATTEMPTS = {
    "mount": "mount -t tmpfs none /tmp",
    "remount of the root": "mount -o remount,rw /sys",
    "a user namespace": "unshare -U true",
    "a mount namespace": "unshare -m true",
    "a disk's device node": "mknod /tmp/disk b 7 0 && head -c 1 /tmp/disk",
    "memory's device node": "mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem",
    "sysrq": "echo h > /proc/sysrq-trigger",
    "a kernel parameter": "echo 1 > /proc/sys/kernel/panic",
    "sysfs": "echo 1 > /sys/kernel/mm/transparent_hugepage/defrag || echo 1 > /sys/power/state",
    "cgroups": "cd /sys/fs/cgroup; [ ! -d memory ] || cd memory; echo 1 > cgroup.procs || mkdir x",
    "the clock": "date -s 2000-01-01; [ $(date +%Y) = 2000 ]",
    "another network": "ip link set lo down",
    "a reboot": "reboot -f",
    "the host name": "hostname other",
    "kernel keys": "cat /proc/keys | grep .",
    "kernel memory": "head -c 1 /proc/kcore | grep .",
    "the kernel's log": "dmesg -c",
    "a root above": "chroot /proc/1/root/../../.. ls /work",
    "swap": "swapon /bin/busybox",
    "modules": "insmod /bin/busybox",
}


@pytest.mark.parametrize("what", sorted(ATTEMPTS))
def test_refused(daemon: LabDaemon, what: str) -> None:
    script = f"({ATTEMPTS[what]}) >/dev/null 2>&1 && echo done || echo refused"
    assert daemon.docker("run", "--rm", "busybox", "sh", "-c", script).ok() == "refused"


def test_allowed_all_the_same(daemon: LabDaemon) -> None:
    script = "chown 1:1 /tmp && su nobody -s /bin/sh -c id && nc -l -p 80 & sleep 0; ping -c1 -W1 127.0.0.1"
    assert "1 packets received" in daemon.docker("run", "--rm", "busybox", "sh", "-c", script).ok()


PROBE = """
import ctypes, errno, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    return errno.errorcode[ctypes.get_errno()] if result < 0 else "done"
print("add_key", call(248, b"user", b"x", b"y", 1, -2))
print("keyctl", call(250, 0, -3, 0))
print("bpf", call(321, 0, 0, 0))
print("perf_event_open", call(298, 0, 0, -1, -1, 0))
print("userfaultfd", call(323, 0))
print("io_uring_setup", call(425, 1, 0))
print("clone_newuser", call(56, 0x10000000 | 17, 0, 0, 0, 0))
print("clone3", call(435, 0, 0))
print("open_by_handle_at", call(304, 0, 0, 0))
print("kexec_load", call(246, 0, 0, 0, 0))
for family in (38, 40):
    try:
        socket.socket(family, 5 if family == 38 else 1).close()
        print("family", family, "done")
    except OSError as e:
        print("family", family, errno.errorcode[e.errno])
"""


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="the distribution's python3 is not there")
def test_system_calls(daemon: LabDaemon) -> None:
    """The distribution's own interpreter, mounted in with its libraries, makes the calls by number."""
    flags = [a for d in ("/usr", "/lib", "/lib64") if Path(d).exists() for a in ("-v", f"{d}:{d}:ro")]
    done = daemon.docker(
        "run", "--rm", "-i", *flags, "busybox", "/usr/bin/python3", "-", input=PROBE.encode()
    )
    found = dict(line.rsplit(" ", 1) for line in done.ok().splitlines())
    assert found.pop("clone3") == "ENOSYS"
    for family in ("family 38", "family 40"):
        assert found.pop(family) in ("EPERM", "EAFNOSUPPORT")
    assert set(found.values()) == {"EPERM"}, found


def test_no_new_privileges(daemon: LabDaemon) -> None:
    out = daemon.docker("run", "--rm", "--security-opt", "no-new-privileges", "busybox", "grep", "NoNewPrivs",
                        "/proc/self/status").ok()  # fmt: skip
    assert out.split()[-1] == "1"


def test_own_seccomp_profile(daemon: LabDaemon, tmp_path: Path) -> None:
    profile = tmp_path / "p.json"
    profile.write_text(
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}'
    )
    done = daemon.docker("run", "--rm", "--security-opt", f"seccomp={profile}", "busybox", "mkdir", "/x")
    assert done.code != 0
    assert "not permitted" in done.errors
    free = daemon.docker(
        "run", "--rm", "--security-opt", "seccomp=unconfined", "busybox", "unshare", "-U", "true"
    )
    assert free.code == 0, free.errors
