"""Does a test notice? A sample of wrong lines, each with the tests that run it: ``make test-mutants``.

    run.py --map            note which tests run which line (.cache/mutants/map.json); --paths are enough
                            where only some have changed
    run.py [--sample N]     N wrong lines of each room, chosen by --seed; exit status 1 below 90 % noticed

A wrong line is tried in a copy of ``src``, with the tests that run it and most of its file: those of
``tests/unit`` first, then those that start daemons, at most ``--tests`` of them. One that hangs is noticed
too. What nobody notices and why that is fine stands in ``survivors.txt``; it counts neither way.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
SOURCE = TOP / "src" / "wherry"
sys.path[:0] = [str(HERE), str(HERE.parent / "suites")]

from patience import patiently  # noqa: E402
from wrong import Wrong, wrong_lines  # noqa: E402

ROOMS = ("storage", "engine", "network", "runtime", "registry")
MAP = TOP / ".cache" / "mutants" / "map.json"
SURVIVORS = HERE / "survivors.txt"
ENOUGH = 0.9
SECONDS = 60.0
"""That the tests of one wrong line together took when they were noted."""
LIMIT = 240.0
"""Seconds that they may take now, after which the wrong line counts as one that hangs."""
CHILDREN = {
    "storage/confined/child": (
        "tests/unit/storage/confined",
        "tests/unit/storage/test_diff.py",
        "tests/unit/storage/test_selection.py",
        "tests/integration/test_files.py",
        "tests/integration/test_build_files.py",
    )
}
"""What runs where no daemon can see which lines it is at, and the tests that have it run."""
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly")

Map = dict[str, Any]


# ---- which tests run which line -------------------------------------------------------------------------


def make_map(workers: int, paths: list[str]) -> None:
    """Run what ``make test`` runs once, slowly, and note the lines that each test is at."""
    import coverage

    with tempfile.TemporaryDirectory(prefix="wh-map-") as place:
        env = {
            **os.environ,
            "WHERRY_COVERAGE": place,
            "WHERRY_COVERAGE_SOURCE": str(SOURCE),
            "PYTHONPATH": str(HERE),
        }
        report = Path(place) / "report.xml"
        argv = [sys.executable, *PYTEST, "-p", "covering", "-n", str(workers), "--dist", "loadgroup"]
        argv += ["-m", "not slow and not thorough", f"--junit-xml={report}", *paths]
        subprocess.run(argv, cwd=TOP, env=env, check=False)
        whole = coverage.CoverageData(basename=f"{place}/whole")
        for file in sorted(Path(place).glob("data.*")):
            part = coverage.CoverageData(basename=str(file))
            try:
                part.read()
            except coverage.exceptions.CoverageException:
                continue  # of a daemon that was killed while it wrote
            whole.update(part)
        known = json.loads(MAP.read_text()) if MAP.exists() else {"seconds": {}, "lines": {}}
        lines: dict[str, dict[str, list[str]]] = known["lines"]
        seconds = _seconds(report)
        for path in sorted(whole.measured_files()):
            name = str(Path(path).relative_to(SOURCE))
            if name.partition("/")[0] in ROOMS:
                before, now = lines.get(name, {}), whole.contexts_by_lineno(path)
                others = {line: set(tests) - seconds.keys() for line, tests in before.items()}
                for line, tests in now.items():
                    others.setdefault(str(line), set()).update(filter(None, tests))
                lines[name] = {line: sorted(tests) for line, tests in others.items() if tests}
        MAP.parent.mkdir(parents=True, exist_ok=True)
        MAP.write_text(json.dumps({"seconds": {**known["seconds"], **seconds}, "lines": lines}))


def _seconds(report: Path) -> dict[str, float]:
    """How long every test that passed took, by its id."""
    from xml.etree import ElementTree

    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        if not any(case.find(what) is not None for what in ("failure", "error", "skipped")):
            place = case.attrib["classname"].replace(".", "/") + ".py"
            found[f"{place}::{case.attrib['name']}"] = float(case.attrib["time"])
    return found


def tests_of(wrong: Wrong, known: Map, most: int) -> list[str]:
    """Those that run the line. First those that run most of its file, as that is what they are about; of
    those that run as much the quickest. Not more than ``SECONDS`` of them together."""
    for beginning, tests in CHILDREN.items():
        if wrong.file.startswith(beginning):
            return list(tests)
    of_file: dict[str, list[str]] = known["lines"].get(wrong.file, {})
    seconds: dict[str, float] = known["seconds"]
    about = Counter(test for tests in of_file.values() for test in tests)
    running = [test for test in of_file.get(str(wrong.line), []) if test in seconds]
    running.sort(key=lambda test: (-about[test], seconds[test]))
    chosen: list[str] = []
    left = SECONDS
    for test in running:
        if len(chosen) < most and (left > seconds[test] or not chosen):
            chosen.append(test)
            left -= seconds[test]
    return sorted(chosen, key=lambda test: (not test.startswith("tests/unit/"), seconds[test]))


# ---- trying ---------------------------------------------------------------------------------------------


class Copy:
    """A copy of ``src`` in which one line at a time is wrong."""

    def __init__(self, place: Path) -> None:
        self._place = place
        shutil.copytree(TOP / "src", place / "src", ignore=shutil.ignore_patterns("__pycache__"))

    def try_out(self, wrong: Wrong, tests: list[str]) -> str:
        """``noticed``, ``survived``, or ``hangs``."""
        file = self._place / "src" / "wherry" / wrong.file
        right = file.read_bytes()
        file.write_bytes(wrong.apply(right))
        try:
            return self._run(tests)
        finally:
            file.write_bytes(right)

    def _run(self, tests: list[str]) -> str:
        env = {**os.environ, "PYTHONPATH": str(self._place / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        with tempfile.TemporaryFile() as out:
            process = subprocess.Popen(
                [sys.executable, *PYTEST, "-x", *tests],
                cwd=TOP, env=env, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
            try:
                code = process.wait(patiently(LIMIT))
            except subprocess.TimeoutExpired:
                return "hangs"
            finally:
                _end(process)
            if code not in (0, 1, 2):
                out.seek(0)
                raise RuntimeError(f"pytest ended with {code}: {out.read()[-2000:].decode()}")
            return "noticed" if code else "survived"


def _end(process: subprocess.Popen[bytes]) -> None:
    """In good order, so that it removes what it has made."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def chosen(rooms: list[str], sample: int, seed: int) -> Iterator[Wrong]:
    """``sample`` wrong lines of each room, the same ones for the same seed and code."""
    for room in rooms:
        every = [
            wrong
            for path in sorted((SOURCE / room).rglob("*.py"))
            for wrong in wrong_lines(path, str(path.relative_to(SOURCE)))
        ]
        random.Random(f"{seed} {room}").shuffle(every)
        yield from every[:sample] if sample else every


def reasons() -> dict[str, str]:
    """Of ``survivors.txt``: why a wrong line is as good as the right one, or what it would take."""
    found, why = {}, ""
    for line in SURVIVORS.read_text().splitlines():
        if line.startswith("#"):
            why = line.lstrip("# ")
        elif line.strip():
            found[line] = why
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--map", action="store_true", help="only note which tests run which line")
    parser.add_argument("--sample", type=int, default=20, help="wrong lines a room; 0 for every one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tests", type=int, default=50, help="tests that a wrong line is shown to")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rooms", nargs="*", default=list(ROOMS))
    parser.add_argument("--paths", nargs="*", default=["tests/unit", "tests/suites", "tests/integration"])
    wanted = parser.parse_args()
    if wanted.map or not MAP.exists():
        make_map(wanted.workers, wanted.paths)
        if wanted.map:
            return 0
    known = json.loads(MAP.read_text())
    fine = reasons()
    with tempfile.TemporaryDirectory(prefix="wh-mutants-") as place:
        copies: Queue[Copy] = Queue()
        for number in range(wanted.workers):
            copies.put(Copy(Path(place) / str(number)))

        def work(wrong: Wrong) -> tuple[Wrong, str]:
            if wrong.key in fine:
                return wrong, "known"
            tests = tests_of(wrong, known, wanted.tests)
            if not tests:
                return wrong, "no test runs it"
            copy = copies.get()
            try:
                return wrong, copy.try_out(wrong, tests)
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(wanted.workers) as pool:
            found = list(_told(pool.map(work, chosen(wanted.rooms, wanted.sample, wanted.seed))))
    return _judge(found)


def _told(found: Iterator[tuple[Wrong, str]]) -> Iterator[tuple[Wrong, str]]:
    began = time.monotonic()
    for number, (wrong, what) in enumerate(found, 1):
        print(f"{time.monotonic() - began:5.0f} s {number:4} {what}: {wrong.file}:{wrong.line}", flush=True)
        if what in ("survived", "no test runs it"):
            print(f"    {wrong.key}", flush=True)
        yield wrong, what


def _judge(found: list[tuple[Wrong, str]]) -> int:
    enough = True
    for room in ROOMS:
        said = [what for wrong, what in found if wrong.file.startswith(f"{room}/")]
        if said:
            said = [what for what in said if what != "known"]
            noticed = sum(what in ("noticed", "hangs") for what in said)
            print(f"{room}: {noticed} of {len(said)} noticed ({noticed / len(said):.0%})")
            enough &= noticed >= ENOUGH * len(said)
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
