"""What was measured, in words: a line a row, markdown, JSON, and the machine it was measured on."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import commands
from cases import Case
from commands import Failed
from engines import BIN, Lab

_HEAD = ("work", "wherry: median (min to max)", "Docker: median (min to max)", "ratio", "aim", "")
_PROGRAMS = {"wherry": ("crun", "conmon"), "docker": ("containerd", "runc")}


@dataclass(frozen=True)
class Row:
    """Values of one case by side (``wherry``, ``docker``), or the reason why there are none."""

    case: Case
    values: Mapping[str, Sequence[float]]
    failure: str = ""

    def median(self, side: str) -> float | None:
        values = self.values.get(side)
        return statistics.median(values) if values and not self.failure else None

    @property
    def ratio(self) -> float | None:
        ours, theirs = self.median("wherry"), self.median("docker")
        return ours / theirs if ours is not None and theirs else None

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, or why that cannot be said."""
        if self.failure:
            return f"FAILED: {self.failure}"
        aim = self.case.aim
        if aim is None:
            return ""
        figure = self.median("wherry") if aim.kind == "value" else self.ratio
        if figure is None:
            return "nothing to compare with"
        return "met" if figure <= aim.most else "**missed**"

    def cells(self) -> tuple[str, ...]:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return (
            self.case.work,
            self._figure("wherry"),
            self._figure("docker"),
            ratio,
            self._aim(),
            self.verdict,
        )

    def _figure(self, side: str) -> str:
        median, values = self.median(side), self.values.get(side, ())
        if median is None:
            return ""
        digits = 2 if max(values) < 10 else 1 if max(values) < 1000 else 0
        spread = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
        return f"{median:.{digits}f} {self.case.unit}{spread}"

    def _aim(self) -> str:
        aim = self.case.aim
        if aim is None:
            return ""
        return f"≤ {aim.most:g}" + (" x" if aim.kind == "ratio" else f" {self.case.unit}")


def line(row: Row) -> str:
    """One row for a terminal."""
    work, ours, theirs, ratio, aim, verdict = (
        cell.replace("`", "").replace("**", "") for cell in row.cells()
    )
    figures = [f"wherry {ours}"] if ours else []
    figures += [f"Docker {theirs}"] if theirs else []
    figures += [f"ratio {ratio}"] if ratio else []
    figures += [f"aim {aim}"] if aim else []
    return f"{row.case.name:<10} {work}\n{'':<10}   {'; '.join([*figures, verdict]).rstrip('; ')}"


def markdown(rows: Sequence[Row], facts: Mapping[str, str], notes: Sequence[str]) -> str:
    """The whole page that ``docs/performance.md`` is."""
    table = [_HEAD, ("---",) * len(_HEAD), *(row.cells() for row in rows)]
    missed = [row.case.work for row in rows if "missed" in row.verdict]
    failed = [row.case.work for row in rows if row.failure]
    return "\n".join(
        [
            "# Performance",
            "",
            _HOW,
            "",
            *(f"- {key}: {text}" for key, text in facts.items()),
            *(f"- {note}" for note in notes),
            "",
            *("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in table),
            "",
            f"Aims missed: {', '.join(missed) if missed else 'none'}.",
            *([f"Rows that could not be measured: {', '.join(failed)}."] if failed else []),
            "",
            _READING,
        ]
    )


_HOW = """\
`make bench` measures wherry and Docker Engine on one machine and writes this table. Each daemon runs in its
own network, mount and pid namespaces, on a new directory of the same file system. The same docker CLI uses
both in turn: one warm-up, then the rounds; the engine that goes first alternates. Times are those of the
whole command, from the creation of its process until it has been reaped."""

_READING = """\
How to read it:

- *ratio* is wherry's median over Docker's; for `version` it is wherry's client over the docker CLI, both
  against wherry's daemon.
- PSS divides a page among the processes that share it, so another running Python or Go program makes the
  figure a little smaller; RSS counts such a page in full. Both are measured 3 s after the last request.
  Docker's daemon is dockerd with its containerd. Each container also has containerd-shim and docker-proxy
  with Docker, and conmon with wherry.
- The growth of a daemon is measured in anonymous memory, which does not depend on other programs. The first
  container that a daemon starts is not counted.
- Published ports are measured with `docker start` of an existing container.
- The 400 MB image has 5 uncompressed layers of 6,000 files each; half of it is random bytes. Each load uses a
  new engine with new directories; the archive is in the page cache."""


def as_json(rows: Sequence[Row], facts: Mapping[str, str], notes: Sequence[str]) -> str:
    return json.dumps(
        {
            "machine": dict(facts),
            "notes": list(notes),
            "rows": [
                {
                    "name": row.case.name,
                    "work": row.case.work,
                    "unit": row.case.unit,
                    "values": {side: list(values) for side, values in row.values.items()},
                    "ratio": row.ratio,
                    "aim": None if row.case.aim is None else [row.case.aim.kind, row.case.aim.most],
                    "verdict": row.verdict.replace("**", ""),
                }
                for row in rows
            ],
        },
        indent=1,
    )


def facts(lab: Lab) -> dict[str, str]:
    """The machine and the versions of everything that was measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB of memory",
        "kernel": f"Linux {platform.release()}, {file_system(lab.base)} on the measured disk",
        "client": _first_line([lab.cli, "--version"]),
    }
    for side, engine in lab.engines.items():
        version = engine.ask("version", "--format", "{{.Server.Version}}")
        programs = [_first_line([p, "--version"]) for p in _PROGRAMS[side] if shutil.which(p)]
        found["Docker" if side == "docker" else "wherry"] = ", ".join([version, *programs])
    found["wherry"] += f", Python {platform.python_version()} in {BIN.parent.name}"
    return found


def file_system(path: Path) -> str:
    """Type of the file system that ``path`` lies on: the last mount with the longest matching point."""
    best, kind = "", "unknown"
    for text in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = text.partition(" - ")
        point = before.split(" ")[4]
        if len(point) >= len(best) and path.resolve().is_relative_to(point):
            best, kind = point, after.split(" ")[0]
    return kind


def _processor() -> str:
    for text in Path("/proc/cpuinfo").read_text().splitlines():
        if text.startswith("model name"):
            return text.partition(":")[2].strip()
    return platform.machine()


def _first_line(argv: Sequence[str]) -> str:
    try:
        return commands.output(argv, commands.environment("/nonexistent")).partition("\n")[0]
    except Failed as e:
        return f"{argv[0]} (version not known: {e})"
