"""What was measured, in words: a line a row, markdown, JSON, and the machine it was measured on."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import commands
from case import Aim, Case
from commands import Failed
from engines import BIN, Lab

_HEAD = ("work", "wherry: median (min to max)", "Docker: median (min to max)", "ratio", "aim", "")
_LOADED = ("loaded: wherry", "loaded: Docker", "loaded: ratio", "aim", "")
_PROGRAMS = {"wherry": ("crun", "conmon"), "docker": ("containerd", "runc")}


@dataclass(frozen=True)
class Figures:
    """Values of one case by side (``wherry``, ``docker``) under one load, and what they should be."""

    unit: str
    aim: Aim | None
    values: Mapping[str, Sequence[float]]

    def median(self, side: str) -> float | None:
        values = self.values.get(side)
        return statistics.median(values) if values else None

    @property
    def ratio(self) -> float | None:
        ours, theirs = self.median("wherry"), self.median("docker")
        return ours / theirs if ours is not None and theirs else None

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, or why that cannot be said."""
        if self.aim is None:
            return ""
        figure = self.ratio if self.aim.kind == "ratio" else self.median("wherry")
        if figure is None:
            return "nothing to compare with"
        met = figure >= self.aim.most if self.aim.kind == "least" else figure <= self.aim.most
        return "met" if met else "**missed**"

    def cells(self) -> tuple[str, ...]:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        aim = "" if self.aim is None else self.aim.text(self.unit)
        return self._figure("wherry"), self._figure("docker"), ratio, aim, self.verdict

    def _figure(self, side: str) -> str:
        median, values = self.median(side), self.values.get(side, ())
        if median is None:
            return ""
        digits = 2 if max(values) < 10 else 1 if max(values) < 1000 else 0
        spread = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
        return f"{median:.{digits}f} {self.unit}{spread}"


@dataclass(frozen=True)
class Row:
    """What a case measured, or the reason why there is nothing.

    :ivar loaded: the same with busy processors, empty where that was not asked for.
    """

    case: Case
    values: Mapping[str, Sequence[float]]
    failure: str = ""
    loaded: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def calm(self) -> Figures:
        return Figures(self.case.unit, self.case.aim, {} if self.failure else self.values)

    @property
    def busy(self) -> Figures | None:
        if not self.loaded or self.failure:
            return None
        return Figures(self.case.unit, self.case.loaded, self.loaded)

    @property
    def verdict(self) -> str:
        return f"FAILED: {self.failure}" if self.failure else self.calm.verdict

    def cells(self, *, loaded: bool = False) -> tuple[str, ...]:
        """:param loaded: whether the table has these columns."""
        calm = (self.case.work, *self.calm.cells()[:-1], self.verdict)
        if not loaded:
            return calm
        return calm + (self.busy.cells() if self.busy is not None else ("",) * len(_LOADED))


def line(row: Row) -> str:
    """One row for a terminal."""
    lines = [f"{row.case.name:<10} {row.case.work.replace('`', '')}", _figures("", row.cells()[1:])]
    if row.busy is not None:
        lines.append(_figures("loaded: ", row.busy.cells()))
    return "\n".join(lines)


def _figures(prefix: str, cells: Sequence[str]) -> str:
    ours, theirs, ratio, aim, verdict = (cell.replace("*", "") for cell in cells)
    named = (("wherry", ours), ("Docker", theirs), ("ratio", ratio), ("aim", aim), ("", verdict))
    return f"{'':<10}   {prefix}{'; '.join(f'{name} {text}'.strip() for name, text in named if text)}"


def markdown(rows: Sequence[Row], facts: Mapping[str, str], notes: Sequence[str]) -> str:
    """The whole page that ``docs/performance.md`` is."""
    loaded = any(row.busy is not None for row in rows)
    head = _HEAD + (_LOADED if loaded else ())
    table = [head, ("---",) * len(head), *(row.cells(loaded=loaded) for row in rows)]
    missed = [row.case.work for row in rows if "missed" in row.verdict]
    missed += [f"{r.case.work} (loaded)" for r in rows if r.busy is not None and "missed" in r.busy.verdict]
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
                    "loaded": {side: list(values) for side, values in row.loaded.items()},
                    "ratio": row.calm.ratio,
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
