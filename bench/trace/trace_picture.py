"""A trace as a picture: time from left to right, a lane for each process and for each kind of wait, as SVG.

A light bar is how long something was under way, the dark parts of a process are where it had a processor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from trace_kernel import Process

_WIDTH, _LEFT, _LANE, _BAR, _TOP = 1100, 190, 18, 12, 34
_COLOURS = {
    "request": "#4878a8",
    "job": "#8a6fb0",
    "runtime": "#b0743c",
    "settle": "#b04848",
    "commit": "#b04848",
    "process": "#c9d6c4",
    "cpu": "#3f7a46",
}
_LANES = {"request": "requests", "job": "jobs of threads", "commit": "commits", "settle": "syncs"}
_NOT_DRAWN = ("hop", "program")
"""A hop is a job as the loop sees it; a program is a process."""

Noted = tuple[str, str, tuple[float, ...]]


def draw(
    path: Path,
    title: str,
    span: tuple[float, float],
    processes: Mapping[int, Process],
    notes: Sequence[Noted],
) -> None:
    """Write the picture of what happened from ``span[0]`` to ``span[1]`` (seconds of one clock)."""
    path.write_text(svg(title, span, processes, notes), encoding="utf-8")


def svg(
    title: str, span: tuple[float, float], processes: Mapping[int, Process], notes: Sequence[Noted]
) -> str:
    began, ended = span
    scale = (_WIDTH - _LEFT - 20) / (ended - began)

    def x(at: float) -> float:
        return _LEFT + (min(max(at, began), ended) - began) * scale

    def bar(lane: int, since: float, until: float, colour: str, thick: int, words: str) -> str:
        y = _TOP + lane * _LANE + (_BAR - thick) / 2
        wide = max(x(until) - x(since), 0.7)
        shown = f"{escape(words)}: {(since - began) * 1e3:.1f} to {(until - began) * 1e3:.1f} ms"
        place = f'x="{x(since):.1f}" y="{y:.1f}" width="{wide:.1f}" height="{thick}"'
        return f'<rect {place} fill="{colour}" fill-opacity="0.75"><title>{shown}</title></rect>'

    drawn: list[str] = []
    lanes: list[str] = []
    for process in sorted(processes.values(), key=lambda p: p.began):
        until = process.ended if process.ended is not None else ended
        if until < began or process.began > ended or not (process.programs or process.cpu > 0.001):
            continue
        lane, since = len(lanes), max(process.began, began)
        if not process.began and not process.cpu:
            continue
        lanes.append(f"{_named(process, processes)}, {process.cpu * 1e3:.1f} ms")
        drawn.append(bar(lane, since, until, _COLOURS["process"], _BAR, lanes[-1]))
        drawn += [bar(lane, a, b, _COLOURS["cpu"], _BAR - 4, "runs") for a, b in process.ran if b > began]
    for kind, words, times in _inside(notes, began, ended):
        lane = _lane(lanes, kind)
        drawn.append(bar(lane, times[0], times[-1], _COLOURS.get(kind, "#888"), _BAR - 2, words))
    height = _TOP + len(lanes) * _LANE + 30
    labels = [
        f'<text x="{_LEFT - 8}" y="{_TOP + n * _LANE + _BAR - 2}" text-anchor="end">{escape(name)}</text>'
        for n, name in enumerate(lanes)
    ]
    head = f'<text x="8" y="18" font-weight="bold">{escape(title)}</text>'
    box = f'xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif"'
    body = [head, *_axis(began, ended, x, height), *labels, *drawn]
    white = f'<rect width="{_WIDTH}" height="{height}" fill="white"/>'
    return "\n".join([f'<svg {box} font-size="11">', white, *body, "</svg>", ""])


def _inside(notes: Iterable[Noted], began: float, ended: float) -> list[Noted]:
    return [n for n in notes if n[0] not in _NOT_DRAWN and n[2][-1] >= began and n[2][0] <= ended]


def _lane(lanes: list[str], kind: str) -> int:
    name = f"daemon: {_LANES.get(kind, kind)}"
    if name not in lanes:
        lanes.append(name)
    return lanes.index(name)


def _named(process: Process, processes: Mapping[int, Process]) -> str:
    """Programs that are run by a descriptor have its number for a name: the OCI runtime."""
    if process.programs:
        return "OCI runtime" if process.name.isdigit() else process.name
    if process.role:
        return process.role
    parent = processes.get(process.parent)
    return f"child of {_named(parent, processes)}" if parent is not None else process.name


def _axis(began: float, ended: float, x: object, height: int) -> list[str]:
    assert callable(x)
    span = (ended - began) * 1e3
    step = next((s for s in (1, 2, 5, 10, 20, 50, 100) if span / s <= 20), 200)
    lines = []
    for ms in range(0, int(span) + 1, step):
        at = x(began + ms / 1e3)
        lines.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP - 6}" y2="{height - 20}" stroke="#ddd"/>')
        lines.append(f'<text x="{at:.1f}" y="{height - 6}" text-anchor="middle" fill="#666">{ms} ms</text>')
    return lines
