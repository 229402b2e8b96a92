"""``python bench/trace``: where the time of one command goes, by process and by wait.

It runs a command against a daemon of its own a number of times, takes the run whose time is the median (or
the fastest, where other work on the machine would show more than the daemon), and writes

- which processes there were: when each began, what it executed, how long it lived, its processor time;
- what the daemon waited for: requests, hops between the loop and threads, programs, commits and syncs of
  its database;
- with ``--svg FILE`` the same as a picture.

The command goes through the docker CLI or, with ``api-``, by plain HTTP.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trace_kernel import Process, processes, tracing
from trace_picture import draw

import commands
from commands import Failed
from engines import Wherry
from plainapi import Api

_IMAGE = "busybox"
_AFTER = 0.3
"""Seconds after the command that still belong to it: what is cleaned up behind the answer."""


class Traced(Wherry):
    """A daemon that notes its waits in the file ``notes``."""

    @property
    def notes(self) -> Path:
        return self.directory / "notes"

    def argv(self) -> list[str]:
        program, *flags = super().argv()
        python = Path(program).with_name("python")
        return [str(python), str(Path(__file__).with_name("daemon.py")), str(self.notes), *flags]


@dataclass(frozen=True)
class Note:
    kind: str
    word: str
    times: tuple[float, ...]


@dataclass(frozen=True)
class Run:
    """One run. ``began`` and ``ended`` are the command's own, seconds of CLOCK_MONOTONIC."""

    began: float
    ended: float
    processes: dict[int, Process]
    notes: list[Note]

    @property
    def seconds(self) -> float:
        return self.ended - self.began


def _cli(*words: str) -> Callable[[Traced], None]:
    return lambda engine: commands_run(engine, words)


def commands_run(engine: Traced, words: Sequence[str]) -> None:
    commands.timed([engine.cli, *words], engine.environment)


def _api_run(engine: Traced) -> None:
    Api(engine.socket).run_to_end(_IMAGE, ["true"])


def _api_exec(engine: Traced) -> None:
    Api(engine.socket).execute("traced", ["true"])


WORKS: dict[str, Callable[[Traced], None]] = {
    "run": _cli("run", "--rm", _IMAGE, "true"),
    "exec": _cli("exec", "traced", "true"),
    "restart": _cli("restart", "-t", "0", "traced"),
    "lines": _cli("run", "--rm", _IMAGE, "sh", "-c", f"yes {'x' * 79} | head -c 67108864"),
    "zeros": _cli("run", "--rm", _IMAGE, "head", "-c", "67108864", "/dev/zero"),
    "api-run": _api_run,
    "api-exec": _api_exec,
}


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    cli = shutil.which("/usr/local/bin/docker") or shutil.which("docker")
    if cli is None:
        sys.exit("trace: the docker CLI is not there")
    base = Path(tempfile.mkdtemp(prefix="trace-", dir="/var/tmp"))
    engine = Traced(base / "wherry-1", cli)
    engine.directory.mkdir()
    try:
        engine.start()
        engine.bootstrap(_IMAGE)
        engine.ask("run", "-d", "--name", "traced", _IMAGE, "sleep", "100000")
        runs = _measured(engine, WORKS[options.work], options.rounds)
        run = sorted(runs, key=lambda r: r.seconds)[0 if options.fastest else len(runs) // 2]
        print(report(options.work, run, [r.seconds for r in runs]))
        if options.svg:
            which = "fastest" if options.fastest else "median"
            title = f"{options.work}: {run.seconds * 1e3:.1f} ms, the {which} of {len(runs)} runs"
            notes = [(note.kind, note.word, note.times) for note in run.notes]
            draw(options.svg, title, (run.began, run.ended), run.processes, notes)
        engine.remove_containers()
    finally:
        engine.stop()
        shutil.rmtree(base)
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/trace", description="where the time of one command goes")
    parser.add_argument("work", choices=list(WORKS))
    parser.add_argument("--rounds", type=int, default=9, metavar="N")
    parser.add_argument("--fastest", action="store_true", help="that run, and not the median one")
    parser.add_argument("--svg", type=Path, metavar="FILE")
    return parser.parse_args(arguments)


def _measured(engine: Traced, work: Callable[[Traced], None], rounds: int) -> list[Run]:
    runs = []
    with tracing() as trace:
        for _ in range(2):
            work(engine)
        for _ in range(rounds):
            time.sleep(_AFTER)
            roots = {**dict.fromkeys(engine.processes(), "daemon"), os.getpid(): "client"}
            engine.notes.write_text("")
            trace.begin()
            began = time.monotonic()
            work(engine)
            ended = time.monotonic()
            time.sleep(_AFTER)
            lines = trace.end()
            runs.append(Run(began, ended, processes(lines, roots), _read(engine.notes)))
    return runs


def _read(path: Path) -> list[Note]:
    notes = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted((Note(kind, word, tuple(times)) for kind, word, *times in notes), key=lambda n: n.times[0])


def report(work: str, run: Run, seconds: Sequence[float]) -> str:
    def ms(at: float) -> str:
        return f"{(at - run.began) * 1e3:7.1f}"

    out = [
        f"{work}: median {statistics.median(seconds) * 1e3:.1f} ms of {len(seconds)} runs "
        f"({min(seconds) * 1e3:.1f} to {max(seconds) * 1e3:.1f})",
        "",
        "processes (ms since the command began; processor time)",
    ]
    for process in sorted(run.processes.values(), key=lambda p: p.began):
        programs = process.role or ", ".join(f"{Path(name).name} at{ms(at)}" for at, name in process.programs)
        end = ms(process.ended) if process.ended is not None else "    ..."
        begin = ms(process.began) if process.began else "    ..."
        whose = f"{process.pid:>7} of {process.parent:>7}"
        out.append(f"  {whose} {begin} to {end}  {process.cpu * 1e3:5.1f} ms  {programs}")
    synced = [s for p in run.processes.values() for s in p.synced]
    out += [
        "",
        f"fsync and fdatasync: {len(synced)}, {sum(e - b for b, e in synced) * 1e3:.1f} ms",
        "",
        "waits of the daemon",
    ]
    for note in run.notes:
        parts = " ".join(ms(at) for at in note.times)
        out.append(f"  {note.kind:<8}{parts}  {(note.times[-1] - note.times[0]) * 1e3:5.1f} ms  {note.word}")
    counted = Counter(note.kind for note in run.notes)
    out += ["", "counts: " + ", ".join(f"{n} {kind}" for kind, n in counted.most_common())]
    return "\n".join(out)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failed as e:
        sys.exit(f"trace: {e}")
