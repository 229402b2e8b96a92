"""The rows of builds. Docker's side is its legacy builder (``DOCKER_BUILDKIT=0``), by the docker CLI on both
sides but where a row's name says ``wherry build``."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import commands
from commands import Failed
from engines import BIN, Engine, Lab, memory

Once = Callable[[], float]

FILES, MANY = 200, 20_000
_TIMEOUT = 180.0
_SMALL = """\
FROM busybox
RUN echo one > /one
COPY files /files
RUN find /files -type f | wc -l > /count
RUN cat /one /count
"""
_LOOP = "i=0; while [ $i -lt 1000000 ]; do i=$((i+1)); done"
_numbers = itertools.count()


def make_context(lab: Lab, name: str, files: int) -> Path:
    path = lab.base / name
    if not path.exists():
        for number in range(files):
            directory = path / "files" / f"d{number // 100:03}"
            directory.mkdir(parents=True, exist_ok=True)
            (directory / f"f{number:05}").write_text(f"content of file {number}\n" * 20)
        path.mkdir(exist_ok=True)
        (path / "Dockerfile").write_text(_SMALL)
    return path


def _legacy(engine: Engine, *arguments: str) -> float:
    """Milliseconds of the docker CLI with the builder that every engine's API has."""
    environment = {**engine.environment, "DOCKER_BUILDKIT": "0"}
    return commands.timed([engine.cli, "build", *arguments], environment, timeout=_TIMEOUT) * 1000


def _own(engine: Engine, *arguments: str) -> float:
    """Of wherry's own client; against Docker's daemon it is Docker's."""
    if engine.name != "wherry":
        return _legacy(engine, *arguments)
    return (
        commands.timed([str(BIN / "wherry"), "build", *arguments], engine.environment, timeout=_TIMEOUT)
        * 1000
    )


@contextlib.contextmanager
def fresh(lab: Lab, side: str) -> Iterator[Once]:
    context, engine = make_context(lab, "small", FILES), lab.engines[side]
    yield lambda: _legacy(engine, "-q", "--no-cache", str(context))


@contextlib.contextmanager
def cached(lab: Lab, side: str) -> Iterator[Once]:
    context, engine = make_context(lab, "small", FILES), lab.engines[side]
    _own(engine, "-q", str(context))
    yield lambda: _own(engine, "-q", str(context))


@contextlib.contextmanager
def cached_legacy(lab: Lab, side: str) -> Iterator[Once]:
    """By the docker CLI on both sides, which sends its whole context each time."""
    context, engine = make_context(lab, "small", FILES), lab.engines[side]
    _legacy(engine, "-q", str(context))
    yield lambda: _legacy(engine, "-q", str(context))


@contextlib.contextmanager
def large_context(lab: Lab, side: str) -> Iterator[Once]:
    """One file changes before each build; what is built needs another: the scan is what is measured."""
    context, engine = make_context(lab, "large", MANY), lab.engines[side]
    (context / "Dockerfile").write_text("FROM busybox\nCOPY files/d000/f00000 /f\n")
    _own(engine, "-q", str(context))

    def once() -> float:
        (context / "files/d001/f00100").write_text(f"changed {next(_numbers)} {time.time_ns()}")
        os.sync()
        return _own(engine, "-q", str(context))

    yield once


@contextlib.contextmanager
def stages(lab: Lab, side: str) -> Iterator[Once]:
    """Four stages that need nothing of each other, as a part of the time of the same steps in a row."""
    engine = lab.engines[side]
    apart, row = lab.base / f"apart-{side}", lab.base / f"row-{side}"
    made = [f"FROM busybox AS s{n}\nRUN {_LOOP}; echo {n} > /{n}\n" for n in range(4)]
    copies = "".join(f"COPY --from=s{n} /{n} /{n}\n" for n in range(4))
    for path, text in (
        (apart, "".join(made) + "FROM busybox\n" + copies),
        (row, "FROM busybox\n" + "".join(f"RUN {_LOOP}; echo {n} > /{n}\n" for n in range(4))),
    ):
        path.mkdir(exist_ok=True)
        (path / "Dockerfile").write_text(text)

    def once() -> float:
        arguments = ("-q", "--no-cache")
        return _legacy(engine, *arguments, str(apart)) / _legacy(engine, *arguments, str(row))

    yield once
    shutil.rmtree(apart)
    shutil.rmtree(row)


@contextlib.contextmanager
def peak(lab: Lab, side: str) -> Iterator[Once]:
    """Of an engine that was started for it, over a build of 20,000 files and one with four stages."""
    context = make_context(lab, "large", MANY)
    (context / "Dockerfile").write_text("FROM busybox\nCOPY files /files\nRUN find /files | wc -l\n")

    def once() -> float:
        with lab.fresh(side) as engine:
            give_image(lab, engine)
            _own(engine, "-q", str(context))
            _own(engine, "-q", "--no-cache", str(make_context(lab, "small", FILES)))
            return max(_high_water(pid) for pid in engine.processes())

    yield once


def give_image(lab: Lab, engine: Engine) -> None:
    """Have the base image in an engine that was just started."""
    if engine.name == "wherry":
        engine.bootstrap("busybox")  # type: ignore[attr-defined]
    else:
        engine.ask("load", "-q", "-i", str(_image(lab)), timeout=_TIMEOUT)


@contextlib.contextmanager
def watched(engine: Engine) -> Iterator[Callable[[], float]]:
    """What all processes of an engine together have at most meanwhile, MiB (PSS)."""
    most, ended = 0.0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.02):
            total = 0.0
            for pid in engine.processes():
                with contextlib.suppress(OSError, Failed):
                    total += memory([pid], "Pss")
            most = max(most, total)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: most
    finally:
        ended.set()
        thread.join()


def _image(lab: Lab) -> Path:
    path = lab.base / "busybox.tar"
    if not path.exists():
        lab.engines["wherry"].ask("save", "-o", str(path), "busybox")
    return path


def _high_water(pid: int) -> float:
    """MiB a process has had at most (proc_pid_status(5), VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0
