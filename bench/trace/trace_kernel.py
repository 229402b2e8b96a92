"""What processes do, told by the kernel: tracefs events of every task, by CLOCK_MONOTONIC.

A trace is an instance of its own below tracefs: other users of tracing are not disturbed. tracefs is
mounted where the host has it mounted already, else in a private directory that goes away with the trace.

The events are few enough (a few thousand in a run of 50 ms) to change what is measured by a few per cent;
``strace`` made the same run four times as long.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from commands import Failed

_EVENTS = (
    "task/task_newtask",
    "sched/sched_process_exec",
    "sched/sched_process_exit",
    "sched/sched_switch",
    "syscalls/sys_enter_fsync",
    "syscalls/sys_exit_fsync",
    "syscalls/sys_enter_fdatasync",
    "syscalls/sys_exit_fdatasync",
)
_CLONE_THREAD = 0x10000
_LINE = re.compile(
    r"^ *(?P<comm>.*?)-(?P<pid>\d+) +\[\d+\] \S+ +(?P<at>\d+\.\d+): (?P<event>\w+):? ?(?P<rest>.*)$"
)
_HOST = Path("/sys/kernel/tracing")


@dataclass
class Process:
    """One process. Times are seconds of CLOCK_MONOTONIC.

    :ivar role: what it is, of one that was there before.
    :ivar programs: what it executed, each with the time; before the first it is a copy of its parent.
    :ivar ran: the stretches in which one of its threads had a processor.
    :ivar synced: calls of fsync and fdatasync: from, to.
    """

    pid: int
    parent: int
    began: float
    ended: float | None = None
    role: str = ""
    programs: list[tuple[float, str]] = field(default_factory=list)
    ran: list[tuple[float, float]] = field(default_factory=list)
    synced: list[tuple[float, float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.role or (Path(self.programs[-1][1]).name if self.programs else "(fork)")

    @property
    def cpu(self) -> float:
        """Seconds of processor time."""
        return sum(end - begin for begin, end in self.ran)


class Trace:
    """:meth:`read` gives the processes seen since the last call."""

    def __init__(self, directory: Path) -> None:
        """:param directory: of the instance."""
        self._directory = directory
        self._write("trace_clock", "mono")
        self._write("buffer_size_kb", "32768")
        for event in _EVENTS:
            self._write(f"events/{event}/enable", "1")

    def _write(self, name: str, text: str) -> None:
        (self._directory / name).write_text(text)

    def begin(self) -> None:
        self._write("trace", "")
        self._write("tracing_on", "1")

    def end(self) -> list[str]:
        """The lines since :meth:`begin`. :raises Failed: the buffer was too small for all of them."""
        self._write("tracing_on", "0")
        lost = sum(
            int(line.split(":")[1])
            for stats in self._directory.glob("per_cpu/*/stats")
            for line in stats.read_text().splitlines()
            if line.startswith("overrun")
        )
        if lost:
            raise Failed(f"{lost} events were lost: the trace's buffer is too small")
        return (self._directory / "trace").read_text(errors="replace").splitlines()


def processes(lines: Sequence[str], roots: Mapping[int, str]) -> dict[int, Process]:
    """The processes ``roots`` and all that descend from them in the trace, by pid.

    :param lines: of tracefs' ``trace``. :param roots: pids, as the kernel's first pid
        namespace has them, with what they are.
    """
    found = {pid: Process(pid, 0, 0.0, role=role) for pid, role in roots.items()}
    of_thread = {int(task.name): pid for pid in roots for task in _tasks(pid)}
    on_since: dict[int, float] = {}
    syncing: dict[int, float] = {}
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        tid, at, event, rest = int(match["pid"]), float(match["at"]), match["event"], match["rest"]
        owner = of_thread.get(tid)
        if event == "sched_switch":
            previous, following = (int(n) for n in re.findall(r"(?:prev|next)_pid=(\d+)", rest))
            _off(found, of_thread, on_since, previous, at)
            if following in of_thread:
                on_since[following] = at
        elif owner is None:
            continue
        elif event == "task_newtask":
            _new_task(found, of_thread, owner, at, rest)
        elif event == "sched_process_exec":
            if name := re.search(r"filename=(\S+)", rest):
                found[owner].programs.append((at, name[1]))
        elif event == "sched_process_exit":
            if owner == tid:
                found[owner].ended = at
        elif event.startswith("sys_f"):
            if "->" in rest:
                if tid in syncing:
                    found[owner].synced.append((syncing.pop(tid), at))
            else:
                syncing[tid] = at
    return found


def _new_task(found: dict[int, Process], of_thread: dict[int, int], owner: int, at: float, rest: str) -> None:
    pid, flags = re.search(r"pid=(\d+)", rest), re.search(r"clone_flags=([0-9a-fx]+)", rest)
    assert pid is not None
    assert flags is not None
    child = int(pid[1])
    if int(flags[1], 16) & _CLONE_THREAD:
        of_thread[child] = owner
        return
    of_thread[child] = child
    found[child] = Process(child, owner, at)


def _off(
    found: dict[int, Process], of_thread: dict[int, int], on_since: dict[int, float], tid: int, at: float
) -> None:
    """A thread leaves its processor."""
    since = on_since.pop(tid, None)
    if since is not None and tid in of_thread:
        found[of_thread[tid]].ran.append((since, at))


def _tasks(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())


@contextlib.contextmanager
def tracing() -> Iterator[Trace]:
    """:raises Failed: this kernel has no tracefs, or does not let us."""
    with contextlib.ExitStack() as stack:
        top = _HOST
        try:
            if not (top / "instances").is_dir():
                top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-tracefs-")))
                subprocess.run(
                    ["mount", "-t", "tracefs", "tracefs", str(top)], check=True, capture_output=True
                )
                stack.callback(subprocess.run, ["umount", str(top)], check=True)
            instance = top / "instances" / f"bench-{id(stack)}"
            instance.mkdir()
            stack.callback(instance.rmdir)
            yield Trace(instance)
        except (OSError, subprocess.CalledProcessError) as e:
            raise Failed(f"the kernel's tracing cannot be used: {e}") from e
