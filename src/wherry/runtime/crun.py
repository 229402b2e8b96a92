"""What crun keeps of a container on disk, for what the daemon does itself instead of starting crun for it.

``<state>/<id>/`` of crun 0.13 to 1.x (crun(1), ``src/libcrun/status.c``)::

    status       JSON: pid and start time of the container's first process, its cgroup, its bundle
    config.json  the runtime specification
    exec.fifo    exists from ``create`` to ``start``: the first process waits for one byte from it

``start`` comes down to that byte, and ``delete`` of a container whose process has ended to its cgroup and
this directory. Both cost a process of their own with crun, 4 ms of processor time, and both are done here
only where nothing else belongs to them: hooks, systemd's cgroups and Intel's resource groups are left to
crun, as is everything that is not as described.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import msgspec

from wherry.linux import cgroups, files
from wherry.model import typed

FIFO = "exec.fifo"


class _Status(msgspec.Struct, rename="kebab"):
    """``status``. ``intelrdt`` and ``scope`` are empty or missing where they are not used."""

    pid: int
    process_start_time: int = 0
    cgroup_path: str = ""
    scope: str | None = None
    intelrdt: str | None = None
    systemd_cgroup: bool = False


class _Spec(msgspec.Struct):
    hooks: dict[str, Any] | None = None


def is_crun(program: str) -> bool:
    """Whether the program is crun itself: a script around it, or another runtime, has its own ways."""
    try:
        content = Path(program).read_bytes()
    except OSError:
        return False
    return content.startswith(b"\x7fELF") and b"libcrun" in content and b"exec.fifo" in content


def let_run(directory: Path) -> bool:
    """Let a created container's process run; False: only crun can do or refuse it.

    :param directory: of the container, below crun's state.
    """
    fifo = directory / FIFO
    if _hooked(directory):
        return False
    try:
        # Without a reader, the process has ended: crun has the words for that.
        fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fifo.unlink()  # first: where it is, crun takes the container for one that was not started
        os.write(fd, b"\0")
    except BrokenPipeError:
        return True  # killed in this moment: it was started, and its monitor tells how it ended
    finally:
        os.close(fd)
    return True


def forget(directory: Path) -> bool:
    """Delete an ended container with its cgroup; False: crun must do it, and nothing has been done.

    What is left in its cgroup is killed.
    """
    try:
        status = typed.from_json((directory / "status").read_bytes(), _Status)
    except (OSError, msgspec.DecodeError):
        return False
    if _hooked(directory) or status.systemd_cgroup or status.scope or status.intelrdt:
        return False
    if not status.cgroup_path.strip("/") or _lives(status):
        return False
    try:
        cgroups.kill(status.cgroup_path)
        cgroups.remove(status.cgroup_path)
        files.remove_tree(directory)
    except OSError:
        return False
    return True


def _hooked(directory: Path) -> bool:
    """Whether somebody's programs belong to the container's steps; yes if nobody knows."""
    try:
        return bool(typed.from_json((directory / "config.json").read_bytes(), _Spec).hooks)
    except (OSError, msgspec.DecodeError):
        return True


def _lives(status: _Status) -> bool:
    """Whether its first process, and not another one by its number, is still there or not reaped."""
    try:
        text = Path(f"/proc/{status.pid}/stat").read_text()
    except OSError as e:
        return e.errno not in (errno.ENOENT, errno.ESRCH)
    state, *rest = text.rpartition(")")[2].split()
    started = int(rest[18])
    return state not in "ZX" and status.process_start_time in (0, started)
