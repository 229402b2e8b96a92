"""The machine's first process: makes a host of the kernel, runs the one command, says how that ended.

It does what an init does that matters to a container engine: the file systems, one cgroup tree of version 2
with every controller, the outer interface, limits; and it is the parent of processes that have lost theirs.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

_LAB = "/lab"
"""Temporary files, on a disk: the root is an overlay, on which no other can have its upper layer."""
_CGROUPS = Path("/sys/fs/cgroup")
_MOUNTS = """
tmpfs       /run                    tmpfs       mode=755,nosuid,nodev
tmpfs       /run/lock               tmpfs       mode=1777,nosuid,nodev,noexec
devpts      /dev/pts                devpts      gid=5,mode=620,ptmxmode=000,nosuid,noexec
tmpfs       /dev/shm                tmpfs       mode=1777,nosuid,nodev
mqueue      /dev/mqueue             mqueue      nosuid,nodev,noexec
cgroup2     /sys/fs/cgroup          cgroup2     nsdelegate,memory_recursiveprot,nosuid,nodev,noexec
securityfs  /sys/kernel/security    securityfs  nosuid,nodev,noexec
bpf         /sys/fs/bpf             bpf         mode=700,nosuid,nodev,noexec
debugfs     /sys/kernel/debug       debugfs     nosuid,nodev,noexec
tracefs     /sys/kernel/tracing     tracefs     nosuid,nodev,noexec
"""
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    _show_modules(Path(job["modules"]))
    _mount_all()
    _show_copies(job["copied"])
    _set_up_cgroups()
    _set_up_network()
    # as systemd has it for services; the kernel's own limit is 4096
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 524288))
    output, result = _port("output"), _port("result")
    os.write(result, b"up\n")
    code = _carry_out(job, output)
    os.write(result, f"exit {code}\n".encode())
    while True:
        # the machine is switched off from outside
        signal.pause()


def _show_modules(modules: Path) -> None:
    """The kernel's modules where modprobe, and the kernel itself by it, looks for them."""
    directory = Path("/usr/lib/modules")
    directory.mkdir(exist_ok=True)
    place = directory / modules.name
    if not place.exists():
        place.symlink_to(modules)
    # the last three for the device nodes that udev makes before anybody opens them
    _run("modprobe", "-a", "virtio_console", "virtio_blk", "virtio_net", "fuse", "loop", "tun")


def _mount_all() -> None:
    for line in _MOUNTS.strip().splitlines():
        source, target, kind, options = line.split()
        Path(target).mkdir(exist_ok=True)
        _run("mount", "-t", kind, "-o", options, source, target)
    for name, target in _LINKS.items():
        if not Path("/dev", name).exists():
            Path("/dev", name).symlink_to(target)
    Path(_LAB).mkdir(exist_ok=True)
    _run("mount", "-t", "ext4", "/dev/vda", _LAB)
    Path(_LAB).chmod(0o1777)
    for path, value in (("kernel/pid_max", "4194304"), ("kernel/hung_task_timeout_secs", "0")):
        if Path("/proc/sys", path).exists():
            Path("/proc/sys", path).write_text(value)


def _show_copies(copied: dict[str, str]) -> None:
    """The copies on the disk in place of what they are copies of."""
    for path, copy in copied.items():
        _run("mount", "--bind", f"{_LAB}/{copy}", path)


def _set_up_cgroups() -> None:
    """As systemd leaves it: every controller for the groups below the root, and no process in that."""
    controllers = (_CGROUPS / "cgroup.controllers").read_text().split()
    service = _CGROUPS / "system.slice" / "tests.service"
    for group in (_CGROUPS / "init.scope", service.parent, service):
        group.mkdir()
    (_CGROUPS / "init.scope" / "cgroup.procs").write_text(str(os.getpid()))
    for group in (_CGROUPS, service.parent):
        (group / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))


def _set_up_network() -> None:
    socket.sethostname("machine")
    for line in (
        "link set lo up",
        "link set eth0 up",
        "addr add 10.0.2.15/24 dev eth0",
        "route add default via 10.0.2.2",
    ):
        _run("ip", *line.split())


def _port(name: str) -> int:
    """A way to the host, by its name."""
    for entry in Path("/sys/class/virtio-ports").iterdir():
        if (entry / "name").read_text().strip() == name:
            return os.open(f"/dev/{entry.name}", os.O_WRONLY | os.O_CLOEXEC)
    raise FileNotFoundError(f"no port {name}")


def _carry_out(job: dict[str, Any], output: int) -> int:
    """Run the command, pass on what it writes, and bury whoever dies meanwhile; its exit code."""
    reader, writer = os.pipe()
    environment = {**job["environment"], "TMPDIR": _LAB, "USER": "root", "LOGNAME": "root"}

    def enter() -> None:
        (_CGROUPS / "system.slice" / "tests.service" / "cgroup.procs").write_text("0")

    try:
        command = subprocess.Popen(
            job["command"],
            cwd=job["directory"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            start_new_session=True,
            preexec_fn=enter,
        )
    except OSError as e:
        os.write(output, f"{job['command'][0]}: {e.strerror}\n".encode())
        return 127
    os.close(writer)
    ended, end = os.pipe()
    pump = threading.Thread(target=_pump, args=(reader, ended, output))
    pump.start()
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == command.pid:
            break
    os.close(end)
    pump.join()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _pump(reader: int, ended: int, output: int) -> None:
    """Pass on what comes until the command has ended and all of it is passed on. The end of the pipe does not
    say that: who outlives the command holds it open."""
    os.set_blocking(reader, False)
    while True:
        ready, _, _ = select.select([reader, ended], [], [])
        data = b""
        with contextlib.suppress(BlockingIOError):
            data = os.read(reader, 65536)
        if not data and ended in ready:
            return
        while data:
            data = data[os.write(output, data) :]


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
