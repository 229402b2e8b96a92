"""Tasks: one OCI process tree each, watched by one conmon that outlives the daemon.

On disk, below ``<run>/tasks/<container id>/`` (the OCI bundle, conmon's persist directory):

    config.json      the runtime specification
    rootfs/          where the container's snapshot is mounted
    pid, conmon.pid  written by conmon
    attach           conmon's SOCK_SEQPACKET attach socket
    ctl, winsz       conmon's control FIFOs
    exit             the exit status, once there is one
    oom              made by conmon when the kernel killed for memory
    execs/<id>/      the same for one exec, with process.json for config.json

All calls block for as long as the runtime takes (milliseconds) and are made from threads.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from wherry.errors import Internal, InvalidArgument
from wherry.linux import fifo
from wherry.linux import process as programs
from wherry.linux.launchspace import LaunchSpace
from wherry.linux.readonlyprogram import ReadOnlyProgram
from wherry.runtime import crun
from wherry.runtime.monitor import Monitor, PendingExec, Started, read_pid
from wherry.runtime.words import explain, not_created

PROCESS = "process.json"
_COMMAND_TIMEOUT = 60.0


@dataclass(frozen=True)
class Streams:
    """How a process is connected. ``stdin_once``: stdin ends with the attached client's input."""

    terminal: bool = False
    stdin: bool = False
    stdin_once: bool = False


class Runtime:
    """One OCI runtime program and conmon, for the tasks below ``<run>``."""

    def __init__(
        self, run: Path, *, name: str, program: str, conmon: str, space: LaunchSpace | None = None
    ) -> None:
        """:param space: where containers are started instead of the host's mount namespace."""
        self.name = name
        self._space = space
        self._program = program
        self._executable = ReadOnlyProgram(program)
        self._knows_crun = crun.is_crun(program)
        self._conmon = conmon
        self._state = run / "runtime" / name
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)

    def create(
        self,
        container_id: str,
        bundle: Path,
        *,
        streams: Streams,
        log_path: Path | None,
        command: str,
        needed: Iterable[str] = (),
        monitor: Monitor | None = None,
    ) -> Started:
        """Create the container: its process waits for :meth:`start`; the attach socket is there.

        :param needed: what the container uses of ``<run>/tasks`` and ``<run>/netns``: entries of these.
        :param monitor: what :meth:`begin` returned for it, with the same streams and log.
        :raises TaskFailed: the runtime refused.
        """
        with ExitStack() as stack:
            through: list[str] = []
            if monitor is None and self._space is not None and (enter := _nsenter()) is not None:
                namespace = stack.enter_context(self._space.entered(needed))
                # Only the runtime enters it: conmon, which stays, must not keep mounts of the host.
                through = [enter, f"--mount={namespace}", "--"] if namespace is not None else []
            if monitor is None:
                monitor = self._monitor(container_id, bundle, streams, log_path, through)
            message = monitor.go()
        if message.data < 0:
            raise not_created(explain(message.message, command), self.name)
        return Started(message.data, read_pid(bundle / "conmon.pid"))

    def begin(
        self, container_id: str, bundle: Path, *, streams: Streams, log_path: Path | None
    ) -> Monitor | None:
        """Begin the monitor that :meth:`create` needs, while the bundle is still being made: conmon looks
        at the bundle only when it is told to go on. ``None`` where what it runs is not known yet.

        The caller closes it, whatever becomes of the start.
        """
        if self._space is not None and self._space.is_wanted():
            return None
        return self._monitor(container_id, bundle, streams, log_path, ())

    def _monitor(
        self, container_id: str, bundle: Path, streams: Streams, log_path: Path | None, through: Sequence[str]
    ) -> Monitor:
        argv = self._conmon_argv(container_id, container_id, bundle, streams, through)
        argv += ["-l", f"k8s-file:{log_path}" if log_path is not None else "none"]
        return Monitor(argv, bundle, self._executable.environment())

    def close(self) -> None:
        """Release what starts share; containers keep running."""
        self._executable.close()
        if self._space is not None:
            self._space.close()

    def start(self, container_id: str, command: str) -> None:
        """Let the created process run. :raises TaskFailed: it could not be executed."""
        if self._knows_crun and crun.let_run(self._state / container_id):
            return
        try:
            self._call("start", container_id)
        except programs.CommandFailed as e:
            raise not_created(explain(e.stderr or e.message, command), self.name) from e

    def delete(self, container_id: str) -> None:
        """Kill what is left of the container and delete its state; if it does not exist, nothing happens."""
        if not (self._state / container_id).exists():
            return
        if self._knows_crun and crun.forget(self._state / container_id):
            return
        try:
            self._call("delete", "--force", container_id)
        except programs.CommandFailed as e:
            if (self._state / container_id).exists():
                raise Internal(f"cannot delete container {container_id}: {e.message}") from e

    def known(self) -> list[str]:
        """Ids of the containers that the runtime knows."""
        return sorted(entry.name for entry in self._state.iterdir() if entry.is_dir())

    def update(self, container_id: str, resources: bytes) -> None:
        """Change limits of a running container; ``resources`` is OCI ``linux.resources`` as JSON."""
        try:
            self._call("update", "--resources", "-", container_id, stdin=resources)
        except programs.CommandFailed as e:
            raise InvalidArgument(f"cannot update limits: {e.stderr.strip() or e.message}") from e

    def prepare_exec(
        self,
        container_id: str,
        exec_id: str,
        directory: Path,
        streams: Streams,
        options: Sequence[str] = (),
        *,
        oom_score_adj: int = 0,
    ) -> PendingExec:
        """Prepare to run another process in the container; nothing runs before ``go``.

        What runs is read from ``process.json`` in the new ``directory`` then: without it, nothing can run.

        :param options: for the runtime's ``exec``.
        :param oom_score_adj: the container's.
        """
        directory.mkdir(parents=True, mode=0o700)
        spec = directory / PROCESS
        through = _with_oom_score(oom_score_adj) + (_hurry() if streams.terminal else [])
        argv = self._conmon_argv(container_id, exec_id, directory, streams, through)
        argv += ["-l", "none", "-e", "--exec-attach", "--exec-process-spec", str(spec)]
        for option in options:
            argv += ["--runtime-opt", option]
        return PendingExec(argv, directory, self._executable.environment())

    def run_beside(
        self,
        container_id: str,
        spec: Path,
        pid_file: Path,
        options: Sequence[str] = (),
        *,
        oom_score_adj: int = 0,
    ) -> programs.Child:
        """Run another process in the container without conmon: it ends with the program that is returned.

        The program exits as the process did; ``pid_file`` is there once the process runs.
        """
        argv = [*_with_oom_score(oom_score_adj), self._executable.runnable(), "--root", str(self._state)]
        argv += ["exec", "--process", str(spec)]
        argv += ["--pid-file", str(pid_file), *options, container_id]
        return programs.Child(argv, self._executable.environment())

    def run_bundle(self, container_id: str, bundle: Path) -> programs.Child:
        """Run a container without conmon: it ends with the program that is returned, which exits as its
        process did. ``<bundle>/pid`` is there once the process is."""
        argv = [self._program, "--root", str(self._state), "run", "--bundle", str(bundle)]
        argv += ["--pid-file", str(bundle / "pid"), container_id]
        return programs.Child(argv, self._executable.environment(), executable=self._executable.runnable())

    def _conmon_argv(
        self, container_id: str, unique_id: str, bundle: Path, streams: Streams, through: Sequence[str] = ()
    ) -> list[str]:
        """:param through: a program, with its arguments, that executes the runtime."""
        first, *rest = [*through, self._executable.runnable()]
        argv = [self._conmon, "--api-version", "1", "-c", container_id, "-u", unique_id]
        argv += ["-r", first, "-b", str(bundle), "-0", str(bundle), "-n", unique_id[:12]]
        for word in rest:
            argv += ["--runtime-arg", word]
        argv += [
            "-p",
            str(bundle / "pid"),
            "-P",
            str(bundle / "conmon.pid"),
            "--exit-dir",
            str(bundle / "exits"),
        ]
        argv += [
            "--full-attach",
            "--no-sync-log",
            "--runtime-arg",
            "--root",
            "--runtime-arg",
            str(self._state),
        ]
        if streams.terminal:
            argv.append("-t")
        if streams.stdin:
            argv.append("-i")
            # A client that detaches from a terminal, or loses it, comes back: only ctrl-d ends that input.
            if streams.terminal or not streams.stdin_once:
                argv.append("--leave-stdin-open")
        return argv

    def _call(self, *arguments: str, stdin: bytes | None = None) -> None:
        programs.run(
            [self._program, "--root", str(self._state), *arguments],
            timeout=_COMMAND_TIMEOUT,
            stdin=stdin,
            env=self._executable.environment(),
            raised=True,
            executable=self._executable.runnable(),
        )


def _with_oom_score(score: int) -> list[str]:
    """How to run the OCI runtime so that an exec inherits ``score``, which crun 1.8 does not set itself."""
    choom = find_program(["choom"])
    return [choom, "-n", str(score), "--"] if choom is not None and score else []


@cache
def _nsenter() -> str | None:
    return find_program(["nsenter"])


@cache
def _hurry() -> list[str]:
    """How to run the OCI runtime so that it is not kept waiting by what it starts; empty where it cannot.

    It sets a terminal's size beside the process that it has started on it, which must not be quicker
    (crun 1.8). A real-time policy that children do not inherit (sched(7), "Resetting scheduling policy").
    """
    program = find_program(["chrt"])
    argv = [program or "", "--reset-on-fork", "--fifo", "1"]
    if program is None:
        return []
    try:
        programs.run([*argv, "/bin/true"], timeout=_COMMAND_TIMEOUT)
    except programs.CommandFailed:
        return []  # no CAP_SYS_NICE, or a cgroup without real-time scheduling
    return argv


def read_exit(bundle: Path) -> tuple[int, int] | None:
    """Exit status and the time it was written (ns since the epoch), or ``None`` when there is none yet."""
    try:
        path = bundle / "exit"
        return int(path.read_text()), path.stat().st_mtime_ns
    except (OSError, ValueError):
        return None


def was_oom_killed(bundle: Path) -> bool:
    return (bundle / "oom").exists()


def conmon_fd(bundle: Path, pid: int) -> int | None:
    """A pidfd of the conmon of ``bundle``, or ``None`` when it is gone or the pid is someone else's now."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        if os.fsencode(bundle) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


def living(directory: Path) -> list[str]:
    """Which of the tasks below ``directory`` a conmon watches."""
    found = []
    for bundle in sorted(directory.iterdir()) if directory.is_dir() else ():
        try:
            pid = int((bundle / "conmon.pid").read_text())
        except (OSError, ValueError):
            continue
        fd = conmon_fd(bundle, pid)
        if fd is not None:
            os.close(fd)
            found.append(bundle.name)
    return found


def process_fd(pid: int) -> int | None:
    """A pidfd of a container's first process, or ``None`` when it has ended."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def send_signal(pidfd: int, number: int) -> bool:
    """Signal through a pidfd, so never a stranger; False when the process has ended."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def resize(bundle: Path, *, height: int, width: int) -> None:
    """Tell conmon the terminal's new size.

    :raises Internal: the process has ended, so nobody reads its control FIFO.
    """
    try:
        fifo.write(bundle / "ctl", f"1 {height} {width}\n".encode())
    except OSError as e:
        raise Internal("cannot resize: the process is not running") from e


def find_program(names: Sequence[str]) -> str | None:
    """The first of ``names`` that is an executable on the fixed PATH (or an absolute path to one)."""
    for name in names:
        found = shutil.which(name, path=programs.PATH)
        if found:
            return found
    return None
