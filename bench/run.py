"""``make bench``: wherry and Docker Engine side by side, in turn, driven by the same docker CLI.

Where Docker Engine is not installed (package docker.io), the bench says so and measures wherry alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import report
from case import Case, Once
from cases import CASES
from commands import Failed
from engines import Lab
from report import Row

CLI = ("/usr/local/bin/docker", "docker")
"""The same binary for both engines; a newer one beside the distribution's is preferred."""
_LOOP = "while True: pass"
_IN_MEMORY = ("tmpfs", "ramfs", "overlay")


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    cli = next(filter(None, map(shutil.which, CLI)), None)
    if os.geteuid() != 0:
        sys.exit("bench: run as root")
    if cli is None:
        sys.exit("bench: the docker CLI is not there (package docker.io)")
    if missing := [p for p in ("unshare", "mount", "ip") if not shutil.which(p)]:
        sys.exit(f"bench: {', '.join(missing)} is not there (packages util-linux, mount, iproute2)")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminated)
    lab = Lab(_directory(), cli)
    rows: list[Row] = []
    try:
        lab.open()
        facts = report.facts(lab)
        notes = _notes(lab, options)
        for text in (*(f"{key}: {value}" for key, value in facts.items()), *notes):
            print(text)
        for case in options.cases:
            rows.append(_row(case, lab, options))
            print(report.line(rows[-1]), flush=True)
    except KeyboardInterrupt:
        print("bench: interrupted; cleaning up", file=sys.stderr)
        return 130
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # cleaning up comes to its end
        lab.close()
    if options.json:
        options.json.write_text(report.as_json(rows, facts, notes) + "\n")
    if options.markdown:
        options.markdown.write_text(report.markdown(rows, facts, notes) + "\n")
    return 1 if any(row.failure for row in rows) else 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="bench", description="wherry and Docker Engine side by side")
    parser.add_argument("--quick", action="store_true", help="few rounds; without the row of 100 containers")
    parser.add_argument("--only", action="append", metavar="NAME", choices=names, help=", ".join(names))
    parser.add_argument("--loaded", action="store_true", help="every row twice: also with busy processors")
    parser.add_argument("--rounds", type=int, metavar="N", help="of every row")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page there")
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds: at least 1")
    if options.only:
        options.cases = [case for case in CASES if case.name in options.only]
    else:
        options.cases = [case for case in CASES if case.in_quick or not options.quick]
    return options


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _directory() -> Path:
    """On a disk: what is in memory says nothing about an engine's storage. Short, as sockets lie below.

    :raises SystemExit: there is none.
    """
    for parent in (os.environ.get("TMPDIR", ""), "/var/tmp", "/tmp"):
        if parent and Path(parent).is_dir() and report.file_system(Path(parent)) not in _IN_MEMORY:
            return Path(tempfile.mkdtemp(prefix="bench-", dir=parent))
    sys.exit("bench: set TMPDIR to a directory on a disk; /var/tmp and /tmp are in memory or layered")


def _notes(lab: Lab, options: argparse.Namespace) -> list[str]:
    notes = []
    if "docker" not in lab.engines:
        notes.append("Docker Engine is not installed here (package docker.io): wherry is measured alone.")
    if options.quick or options.rounds:
        notes.append("A short run: fewer rounds than the table is made of.")
    load = os.getloadavg()[0]
    if load > 0.5:
        notes.append(f"The machine was not idle when this began (load average {load:.1f}).")
    return notes


def _row(case: Case, lab: Lab, options: argparse.Namespace) -> Row:
    """Measure a case on every side it has. A failure is the row's, not the bench's.

    :raises Failed: an engine could not be brought back to where it was before.
    """
    sides = list(lab.engines) if case.against_docker else ["wherry", "docker"]
    rounds = options.rounds or (case.quick_rounds if options.quick else case.rounds)
    values: dict[str, list[float]] = {side: [] for side in sides}
    loaded: dict[str, list[float]] = {side: [] for side in sides} if options.loaded else {}
    failure = ""
    try:
        with ExitStack() as stack:
            once = {side: stack.enter_context(case.function(lab, side)) for side in sides}
            _measure(once, rounds, values, warm_up=case.warm_up)
            if loaded:
                with _busy():
                    _measure(once, rounds, loaded, warm_up=case.warm_up)
    except (Failed, OSError) as e:
        failure = str(e).replace("\n", " ")
    lab.tidy()
    return Row(case, values, failure, loaded)


@contextmanager
def _busy() -> Iterator[None]:
    """A loop on each processor that competes with what is measured, at the same priority."""
    loops = [subprocess.Popen([sys.executable, "-c", _LOOP]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _measure(once: dict[str, Once], rounds: int, values: dict[str, list[float]], *, warm_up: bool) -> None:
    sides = list(once)
    if warm_up:
        for side in sides:
            once[side]()
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            values[side].append(once[side]())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
