"""The machine with the stock kernel, as those who run tests in it count on it."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from patience import patiently

_MACHINE = Path(__file__).with_name("machine.py")
_CACHE = Path(__file__).resolve().parents[2] / ".cache" / "kernels"

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(
        shutil.which("qemu-system-x86_64") is None or not _CACHE.exists(), reason="needs setup --with-kernel"
    ),
]


def start(directory: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A machine whose temporary files are in ``directory``."""
    argv = [sys.executable, str(_MACHINE), *arguments]
    environment = {**os.environ, "TMPDIR": str(directory)}
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=patiently(240))
    finally:
        process.kill()
        process.wait()
    return process.returncode, out.decode(), err.decode()


_HOST = """
cat /sys/fs/cgroup/cgroup.subtree_control /proc/self/cgroup
stat -f -c %T /sys/fs/cgroup /dev/mqueue /dev/shm /run "$TMPDIR"
ip link add d0 type dummy && ip link add link d0 name v0 type vlan id 5 && echo modules are loaded
cat /sys/kernel/security/lsm; echo
touch /etc/wherry-was-here
echo "$WHERRY_X in $(pwd)"
setsid sleep 1000 &
seq 100000 | tail -n 1
exit 7
"""


def test_a_command_runs_as_on_a_host_and_its_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHERRY_X", "a b")
    code, out, err = finish(start(tmp_path, "--", "sh", "-c", _HOST))
    assert (code, err) == (7, "")
    lines = out.splitlines()
    assert {"cpu", "cpuset", "io", "memory", "pids"} <= set(lines[0].split())
    assert lines[1] == "0::/system.slice/tests.service", "version 2 alone"
    assert lines[2:7] == ["cgroup2fs", "mqueue", "tmpfs", "tmpfs", "ext2/ext3"]
    assert lines[7] == "modules are loaded" and "apparmor" in lines[8]
    assert lines[9:] == [f"a b in {_CACHE.parents[1]}", "100000"]
    assert not Path("/etc/wherry-was-here").exists()
    assert not list(tmp_path.iterdir())


def test_a_kernel_that_panics(tmp_path: Path) -> None:
    code, _, err = finish(start(tmp_path, "--", "sh", "-c", "echo c > /proc/sysrq-trigger; sleep 1000"))
    assert code == 120
    assert "the machine ended before the command did" in err and "Kernel panic" in err
    assert not list(tmp_path.iterdir())


def test_a_command_that_takes_too_long_or_is_not_there(tmp_path: Path) -> None:
    code, _, err = finish(start(tmp_path, "--timeout", "2", "--", "sleep", "1000"))
    assert (code, err) == (124, "machine: the command took longer than 2 s\n")
    code, out, _ = finish(start(tmp_path, "--", "/nope"))
    assert (code, out) == (127, "/nope: No such file or directory\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_machine_whose_end_is_asked_for(tmp_path: Path, number: int) -> None:
    process = start(tmp_path, "--", "sh", "-c", "echo up; sleep 1000")
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], patiently(240))
        assert ready and os.read(process.stdout.fileno(), 10) == b"up\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        emulator = os.pidfd_open(int(children[0]))
    finally:
        process.send_signal(number)
        process.communicate()
    try:
        assert select.select([emulator], [], [], patiently(10))[0], "the emulator goes with it"
    finally:
        os.close(emulator)
    assert process.returncode in (130, 128 + number, -number)
    assert not list(tmp_path.iterdir())
