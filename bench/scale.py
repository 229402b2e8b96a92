"""Cost against number: what one more object costs beside many others, on wherry and on Docker Engine.

    python bench/scale.py [--only containers] [--most 1000] [--json FILE] [--pictures DIRECTORY]

Each series grows one kind of object step by step. At every step it measures the time to make one more
(median and 99th percentile), the time of the list, the memory (PSS) and descriptors of all the engine's
processes, and the time from the kill of the daemon until a new one has answered a list. The engines are
measured one after the other, each in a room of its own (``engines.py``). One that fails at a step stops
there, which is told. Everything goes by the API. Pictures need matplotlib, which only the bench uses.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import asking
from commands import Failed
from engines import Engine, Lab, memory
from run import CLI

CLIENTS = 8
"""Clients that work at the same time, to come from one step to the next."""
SAMPLES = 30


@dataclass(frozen=True)
class Point:
    """One step of a series. Times are in milliseconds, memory in MiB."""

    count: int
    one_more: float
    one_more_p99: float
    list: float
    memory: float
    descriptors: int
    restart: float | None


@dataclass
class Line:
    """A series on one engine."""

    engine: str
    points: list[Point] = field(default_factory=list)
    ended: str = ""


class Subject:
    """One kind of object on one engine: makes one, removes it again, lists all."""

    steps: tuple[int, ...] = ()
    what = ""
    restarts = True

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.number = 0

    def ask(
        self, method: str, target: str, body: Any = None, *, ok: tuple[int, ...] = (200, 201, 204)
    ) -> bytes:
        return asking.ask(self.engine.socket, method, target, body, ok=ok)

    def next(self) -> int:
        self.number += 1
        return self.number

    def prepare(self) -> str:
        """What can be done before the clock runs; its name is given to the two below."""
        return f"n{self.next()}"

    def make(self, name: str) -> None:
        raise NotImplementedError

    def remove(self, name: str) -> None:
        raise NotImplementedError

    def list(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what is not the engine's."""


class Containers(Subject):
    """Running containers; the start of one more."""

    steps = (10, 100, 500, 1000, 2000)
    what = "running containers"
    host: dict[str, Any] = {"NetworkMode": "none"}

    def prepare(self) -> str:
        name = f"n{self.next()}"
        body = {
            "Image": "busybox",
            "Cmd": ["sleep", "1000000"],
            "StopSignal": "KILL",
            "HostConfig": self.host,
        }
        self.ask("POST", f"/containers/create?name={name}", body)
        return name

    def make(self, name: str) -> None:
        self.ask("POST", f"/containers/{name}/start")

    def remove(self, name: str) -> None:
        self.ask("DELETE", f"/containers/{name}?force=1")

    def list(self) -> None:
        self.ask("GET", "/containers/json")


class Ports(Containers):
    """Running containers on the default bridge, each with a published port."""

    steps = (10, 100, 300, 600, 1000)
    what = "published ports"
    host = {
        "NetworkMode": "bridge",
        "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]},
    }


class Networks(Subject):
    """Bridge networks, each with a subnet that the client names: Engine's own pools have 31."""

    steps = (10, 50, 100, 300)
    what = "bridge networks"

    def make(self, name: str) -> None:
        number = int(name[1:])
        subnet = f"10.{100 + number // 256}.{number % 256}.0/24"
        self.ask("POST", "/networks/create", {"Name": name, "IPAM": {"Config": [{"Subnet": subnet}]}})

    def remove(self, name: str) -> None:
        self.ask("DELETE", f"/networks/{name}")

    def list(self) -> None:
        self.ask("GET", "/networks")


class Images(Subject):
    """Images of one layer each, imported from an archive."""

    steps = (10, 100, 500, 1000)
    what = "images"

    def make(self, name: str) -> None:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo("file")
            entry.size = len(name)
            tar.addfile(entry, io.BytesIO(name.encode()))
        self.ask("POST", f"/images/create?fromSrc=-&repo={name}", archive.getvalue())

    def remove(self, name: str) -> None:
        self.ask("DELETE", f"/images/{name}")

    def list(self) -> None:
        self.ask("GET", "/images/json")


class Volumes(Subject):
    steps = (10, 100, 1000, 3000)
    what = "volumes"

    def make(self, name: str) -> None:
        self.ask("POST", "/volumes/create", {"Name": name})

    def remove(self, name: str) -> None:
        self.ask("DELETE", f"/volumes/{name}")

    def list(self) -> None:
        self.ask("GET", "/volumes")


class _Streams(Subject):
    """Answers that stay open, all held by this process."""

    restarts = False

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._open: dict[str, asking.Connection] = {}

    def target(self) -> str:
        raise NotImplementedError

    def make(self, name: str) -> None:
        connection = asking.Connection(self.engine.socket)
        connection.request("GET", self.target())
        answer = connection.getresponse()
        if answer.status != 200:
            raise Failed(f"{self.target()}: {answer.status}")
        self._open[name] = connection

    def remove(self, name: str) -> None:
        connection = self._open.pop(name)
        if connection.sock is not None:
            connection.sock.close()
        connection.close()

    def list(self) -> None:
        """A small request of somebody else."""
        self.ask("GET", "/_ping")

    def close(self) -> None:
        for name in list(self._open):
            self.remove(name)


class Events(_Streams):
    """Clients that follow the events; another client's volume comes and goes, which all are told."""

    steps = (1, 10, 100, 500)
    what = "followers of events"

    def target(self) -> str:
        return f"/events?since={int(time.time())}"

    def list(self) -> None:
        name = f"told{self.next()}"
        self.ask("POST", "/volumes/create", {"Name": name})
        self.ask("DELETE", f"/volumes/{name}")


class Logs(_Streams):
    """Clients that follow the logs of one silent container."""

    steps = (1, 10, 100, 500)
    what = "followers of logs"

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        body = {"Image": "busybox", "Cmd": ["sleep", "1000000"], "HostConfig": {"NetworkMode": "none"}}
        self.ask("POST", "/containers/create?name=silent", body)
        self.ask("POST", "/containers/silent/start")

    def target(self) -> str:
        return "/containers/silent/logs?stdout=1&follow=1"


SUBJECTS: dict[str, type[Subject]] = {
    "containers": Containers,
    "ports": Ports,
    "networks": Networks,
    "images": Images,
    "volumes": Volumes,
    "events": Events,
    "logs": Logs,
}


# ---- measuring -------------------------------------------------------------------------------------------


def measure(engine: Engine, kind: type[Subject], most: int, line: Line) -> None:
    """All steps of a series on one engine, into ``line``."""
    subject = kind(engine)
    try:
        there = 0
        for count in (step for step in kind.steps if step <= most):
            _fill(subject, count - there)
            there = count
            line.points.append(_point(subject, count))
            print(f"{engine.name}: {line.points[-1]}", file=sys.stderr, flush=True)
    except (Failed, OSError) as e:
        line.ended = str(e).replace("\n", " ")[:300]
    finally:
        subject.close()


def _fill(subject: Subject, missing: int) -> None:
    with ThreadPoolExecutor(1 if isinstance(subject, _Streams) else CLIENTS) as clients:
        for _ in clients.map(lambda _: subject.make(subject.prepare()), range(missing)):
            pass


def _point(subject: Subject, count: int) -> Point:
    made = [_one_more(subject) for _ in range(SAMPLES + 2)][2:]
    lists = [_timed(subject.list) for _ in range(12)][2:]
    time.sleep(2)
    processes = list(subject.engine.processes())
    return Point(
        count=count,
        one_more=statistics.median(made),
        one_more_p99=sorted(made)[int(0.99 * (len(made) - 1))],
        list=statistics.median(lists),
        memory=memory(processes, "Pss"),
        descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in processes),
        restart=_restart(subject) if subject.restarts else None,
    )


def _one_more(subject: Subject) -> float:
    name = subject.prepare()
    took = _timed(partial(subject.make, name))
    subject.remove(name)
    return took


def _timed(work: Callable[[], None]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def _restart(subject: Subject) -> float:
    """From the kill of the daemon until a new one has answered a list, in milliseconds."""

    def work() -> None:
        subject.engine.replace()
        subject.list()

    return _timed(work)


# ---- what is shown ---------------------------------------------------------------------------------------

_SHOWN: tuple[tuple[str, str], ...] = (
    ("one_more", "one more (median), ms"),
    ("one_more_p99", "one more (99th percentile), ms"),
    ("list", "list, ms"),
    ("memory", "memory of the engine, MiB"),
    ("descriptors", "open descriptors"),
    ("restart", "restart until the list, ms"),
)


def table(name: str, lines: list[Line]) -> str:
    """Markdown, a row for each step, the engines beside each other in a cell."""
    engines = " / ".join(line.engine for line in lines)
    rows = [f"| {SUBJECTS[name].what} ({engines}) | {' | '.join(words for _, words in _SHOWN)} |"]
    rows.append("| --- " * (1 + len(_SHOWN)) + "|")
    for count in sorted({point.count for line in lines for point in line.points}):
        reached = [next((p for p in line.points if p.count == count), None) for line in lines]
        cells = (" / ".join(_cell(point, key) for point in reached) for key, _ in _SHOWN)
        rows.append(f"| {count} | {' | '.join(cells)} |")
    told = [f"\n{line.engine} ended: {line.ended}" for line in lines if line.ended]
    return "\n".join(rows + told)


def _cell(point: Point | None, key: str) -> str:
    value = None if point is None else getattr(point, key)
    return "-" if value is None else _rounded(value)


def _rounded(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or isinstance(value, int) else f"{value:.1f}"


def picture(name: str, lines: list[Line], file: Path) -> None:
    """Six small plots of a series, cost against number, as SVG."""
    import matplotlib  # type: ignore[import-not-found,unused-ignore]

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = name  # the same picture for the same figures
    matplotlib.rcParams["svg.fonttype"] = "none"  # letters as text, not as outlines
    from matplotlib import pyplot  # type: ignore[import-not-found,unused-ignore]

    figure, places = pyplot.subplots(2, 3, figsize=(10, 5), layout="constrained")
    for place, (key, words) in zip(places.flat, _SHOWN, strict=True):
        for line, color in zip(lines, ("#0b6e99", "#c2571a"), strict=False):
            points = [(p.count, getattr(p, key)) for p in line.points if getattr(p, key) is not None]
            if points:
                place.plot(
                    *zip(*points, strict=True), marker="o", markersize=3, color=color, label=line.engine
                )
        place.set_title(words, fontsize=9)
        place.set_ylim(bottom=0)
        place.tick_params(labelsize=8)
        place.grid(alpha=0.25)
    places.flat[0].legend(fontsize=8)
    figure.supxlabel(SUBJECTS[name].what, fontsize=9)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--only", action="append", choices=list(SUBJECTS), metavar="SERIES", help=", ".join(SUBJECTS)
    )
    parser.add_argument("--most", type=int, default=2000, help="objects of a kind (default %(default)s)")
    parser.add_argument("--engine", action="append", choices=("wherry", "docker"), help="(default: both)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every figure there")
    parser.add_argument("--pictures", type=Path, metavar="DIRECTORY", help="draw scale-*.svg there")
    wanted = parser.parse_args()
    cli = next(path for path in CLI if Path(path).exists() or path == CLI[-1])
    found: dict[str, list[Line]] = {}
    Engine.options = {"live-restore": True}  # else Engine's containers end with its daemon
    lab = Lab(Path(tempfile.mkdtemp(prefix="scale-", dir="/var/tmp")), cli)
    try:
        with contextlib.ExitStack() as stack:
            archive = _busybox(lab, stack)
        for name in wanted.only or SUBJECTS:
            lines = found[name] = []
            for engine in wanted.engine or lab.kinds:
                lines.append(Line(engine))
                with lab.fresh(engine) as running:
                    running.ask("load", "-i", archive)
                    measure(running, SUBJECTS[name], wanted.most, lines[-1])
            print(table(name, lines), end="\n\n", flush=True)
            if wanted.pictures:
                picture(name, lines, wanted.pictures / f"scale-{name}.svg")
    finally:
        lab.close()
        if wanted.json:
            everything = {name: [asdict(line) for line in lines] for name, lines in found.items()}
            wanted.json.write_text(json.dumps(everything, indent=1) + "\n")
    return (
        1 if any(line.ended for lines in found.values() for line in lines if line.engine == "wherry") else 0
    )


def _busybox(lab: Lab, stack: contextlib.ExitStack) -> str:
    """An archive of the one image that all use."""
    from engines import Wherry

    archive = str(lab.base / "busybox.tar")
    maker = stack.enter_context(lab.fresh("wherry"))
    assert isinstance(maker, Wherry)
    maker.bootstrap("busybox")
    maker.ask("save", "-o", archive, "busybox")
    return archive


if __name__ == "__main__":
    sys.exit(main())
