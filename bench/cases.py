"""The rows of the table, one function each.

A row is set up and taken down by a context manager; what it yields is called once a round and returns one
value: milliseconds, or MiB. Only that call is measured, and of it only what the row's name says.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import archive
import builds
import commands
import copies
import daily
import networks
import plugins
import registries
import volumes
from case import Case, Function, Once, ratio, value
from commands import Failed
from engines import BIN, Engine, Lab, memory

QUIET = 3.0
"""Seconds that a daemon has been left alone before it is called idle."""
CLIENTS, PER_CLIENT = 8, 5
MEMORY_CONTAINERS = 10
BESIDE = 100
STREAM = 64 * 1024 * 1024
SLEEP = ("busybox", "sleep", "100000")
_BULK_TIMEOUT = 180.0


def _ms(seconds: float) -> float:
    return seconds * 1000


# ---- one container -------------------------------------------------------------------------------------


@contextlib.contextmanager
def run_bridge(lab: Lab, side: str) -> Iterator[Once]:
    engine = lab.engines[side]
    yield lambda: _ms(engine.timed("run", "--rm", "busybox", "true"))


@contextlib.contextmanager
def run_none(lab: Lab, side: str) -> Iterator[Once]:
    engine = lab.engines[side]
    yield lambda: _ms(engine.timed("run", "--rm", "--network", "none", "busybox", "true"))


@contextlib.contextmanager
def exec_true(lab: Lab, side: str) -> Iterator[Once]:
    engine = lab.engines[side]
    engine.ask("run", "-d", "--name", "bench-exec", *SLEEP)
    yield lambda: _ms(engine.timed("exec", "bench-exec", "true"))
    engine.ask("rm", "-f", "bench-exec")


def _published(engine: Engine, ports: str) -> float:
    """Start a container that was created before; its removal is not measured."""
    name = "bench-ports"
    engine.ask("create", "--name", name, "-p", f"{ports}:{ports}", *SLEEP)
    try:
        return _ms(engine.timed("start", name))
    finally:
        engine.ask("rm", "-f", name)


@contextlib.contextmanager
def start_one_port(lab: Lab, side: str) -> Iterator[Once]:
    yield lambda: _published(lab.engines[side], "20000")


@contextlib.contextmanager
def start_many_ports(lab: Lab, side: str) -> Iterator[Once]:
    yield lambda: _published(lab.engines[side], "20000-20031")


# ---- many containers -----------------------------------------------------------------------------------


def _start_many(engine: Engine, clients: int, each: int, *options: str) -> None:
    """``clients`` clients at the same time, each starting ``each`` containers one after the other."""

    def client(_number: int) -> None:
        for _ in range(each):
            engine.timed("run", "-d", *options, *SLEEP)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))


@contextlib.contextmanager
def many_clients(lab: Lab, side: str) -> Iterator[Once]:
    engine = lab.engines[side]

    def once() -> float:
        began = time.perf_counter()
        _start_many(engine, CLIENTS, PER_CLIENT)
        seconds = time.perf_counter() - began
        engine.remove_containers()
        return _ms(seconds) / (CLIENTS * PER_CLIENT)

    yield once


@contextlib.contextmanager
def run_beside(lab: Lab, side: str) -> Iterator[Once]:
    engine = lab.engines[side]
    _start_many(engine, 4, BESIDE // 4)
    yield lambda: _ms(engine.timed("run", "--rm", "busybox", "true"))
    engine.remove_containers()


# ---- output --------------------------------------------------------------------------------------------


def _stream(engine: Engine, script: str) -> float:
    """An attached run whose output is read from a pipe and counted: all of it has to come."""
    argv = [engine.cli, "run", "--rm", "busybox", "sh", "-c", script]
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as source, os.fdopen(write, "wb") as sink:
        counter = subprocess.Popen(["wc", "-c"], stdin=source, stdout=subprocess.PIPE)
        try:
            source.close()
            seconds = commands.timed(argv, engine.environment, timeout=120, stdout=sink)
        finally:
            sink.close()
            counted, _ = counter.communicate()
    if int(counted) != STREAM:
        raise Failed(f"{int(counted)} bytes of {STREAM} came out")
    return _ms(seconds)


@contextlib.contextmanager
def stream_lines(lab: Lab, side: str) -> Iterator[Once]:
    script = f"yes {'x' * 79} | head -c {STREAM}"
    yield lambda: _stream(lab.engines[side], script)


@contextlib.contextmanager
def stream_bytes(lab: Lab, side: str) -> Iterator[Once]:
    yield lambda: _stream(lab.engines[side], f"head -c {STREAM} /dev/zero")


# ---- memory --------------------------------------------------------------------------------------------


def _idle(engine: Engine, kind: str) -> float:
    engine.restart()
    time.sleep(QUIET)
    return memory(list(engine.processes()), kind)


@contextlib.contextmanager
def idle_memory(lab: Lab, side: str) -> Iterator[Once]:
    yield lambda: _idle(lab.engines[side], "Pss")


@contextlib.contextmanager
def idle_resident(lab: Lab, side: str) -> Iterator[Once]:
    yield lambda: _idle(lab.engines[side], "Rss")


def _memory_of_containers(engine: Engine) -> tuple[float, float]:
    """MiB for each running container: of processes that came with it, and by which the daemon grew."""
    engine.restart()
    # What its first start makes a daemon load is not a container's.
    engine.ask("run", "--rm", "busybox", "true")
    time.sleep(QUIET)
    before = list(engine.processes())
    idle = memory(before, "Anonymous")
    for number in range(MEMORY_CONTAINERS):
        engine.ask("run", "-d", "-p", f"{21000 + number}:80", *SLEEP)
    time.sleep(QUIET)
    grown = memory(before, "Anonymous") - idle
    came = memory([pid for pid in engine.processes() if pid not in before], "Pss")
    engine.remove_containers()
    return came / MEMORY_CONTAINERS, grown / MEMORY_CONTAINERS


@contextlib.contextmanager
def container_memory(lab: Lab, side: str) -> Iterator[Once]:
    yield lambda: _memory_of_containers(lab.engines[side])[0]


@contextlib.contextmanager
def daemon_growth(lab: Lab, side: str) -> Iterator[Once]:
    yield lambda: _memory_of_containers(lab.engines[side])[1]


# ---- client --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def client_version(lab: Lab, side: str) -> Iterator[Once]:
    engine = lab.engines["wherry"]
    program = str(BIN / "wherry") if side == "wherry" else engine.cli
    yield lambda: _ms(commands.timed([program, "version"], engine.environment))


# ---- images --------------------------------------------------------------------------------------------


def _load(lab: Lab, side: str, path: str) -> float:
    """Into an engine and directories of its own: a file system that has just had as many files deleted
    makes new ones more slowly, and neither engine shall pay for the other."""
    with lab.fresh(side) as engine:
        os.sync()
        return _ms(engine.timed("load", "-q", "-i", path, timeout=_BULK_TIMEOUT))


@contextlib.contextmanager
def load_image(lab: Lab, side: str) -> Iterator[Once]:
    path = lab.base / "load.tar"
    if not path.exists():
        archive.write(path, repository="bench/load")
    yield lambda: _load(lab, side, str(path))


def _copy(how: Callable[[Lab, str, str], AbstractContextManager[Once]], name: str) -> Function:
    return lambda lab, side: how(lab, side, name)


CASES: Sequence[Case] = (
    Case("run", "`docker run --rm busybox true`, bridge", run_bridge, aim=ratio(0.15), loaded=ratio(0.18)),
    Case("run-none", "`docker run --rm --network none busybox true`", run_none, aim=ratio(0.25)),
    Case("exec", "`docker exec c true`", exec_true, aim=ratio(0.4), loaded=ratio(0.45)),
    Case(
        "clients",
        "40 containers started by 8 clients, per container",
        many_clients,
        aim=ratio(0.18),
        loaded=ratio(0.22),
        rounds=5,
        quick_rounds=1,
    ),
    *daily.CASES,
    *(
        Case(
            name,
            f"64 MiB of stdout through an attached run, {what}",
            work,
            "ms",
            ratio(0.2),
            5,
            loaded=ratio(0.3),
        )
        for name, what, work in (("lines", "lines", stream_lines), ("bytes", "zeros", stream_bytes))
    ),
    Case(
        "idle",
        "idle daemon, PSS",
        idle_memory,
        unit="MiB",
        aim=value(38),
        rounds=5,
        quick_rounds=1,
        warm_up=False,
    ),
    Case(
        "resident",
        "idle daemon, RSS",
        idle_resident,
        unit="MiB",
        rounds=3,
        quick_rounds=1,
        warm_up=False,
    ),
    Case(
        "container",
        "each running container with a published port, PSS of everything but its own process",
        container_memory,
        unit="MiB",
        aim=value(1.2),
        rounds=3,
        quick_rounds=1,
        warm_up=False,
    ),
    Case(
        "growth",
        "each running container with a published port, anonymous memory by which the daemon grows",
        daemon_growth,
        unit="MiB",
        rounds=3,
        quick_rounds=1,
        warm_up=False,
    ),
    Case(
        "version",
        "`wherry version` against `docker version`",
        client_version,
        aim=ratio(2.5),
        against_docker=False,
    ),
    Case(
        "load",
        "load of a 400 MB, 5-layer image",
        load_image,
        aim=ratio(0.7),
        rounds=3,
        quick_rounds=1,
        warm_up=False,
    ),
    *(
        Case(name, work, registries.repeated(once), unit, aim, rounds=3, quick_rounds=1, warm_up=False)
        for name, work, once, unit, aim in (
            ("pull", "pull of a 900 MB, 30,000-file, 5-layer image", registries.pull, "ms", ratio(0.55)),
            ("pull-again", "pull when all layers are there", registries.pull_again, "ms", ratio(0.5)),
            ("push-known", "push of it, blobs known to the registry", registries.push_known, "ms", ratio(1)),
            (
                "save-load",
                "save of it to a file and load from it",
                registries.save_and_load,
                "ms",
                ratio(0.6),
            ),
            ("pull-memory", "peak memory of the engine during that pull", registries.peak, "MiB", value(150)),
        )
    ),
    Case(
        "cp-out",
        "`docker cp` of a 1 GB file out of a container",
        _copy(copies.out_of, "large"),
        aim=ratio(1),
        rounds=5,
        quick_rounds=1,
    ),
    Case(
        "cp-in",
        "`docker cp` of a 1 GB file into a container",
        _copy(copies.into, "large"),
        aim=ratio(1),
        rounds=5,
        quick_rounds=1,
    ),
    Case("cp-many-out", "`docker cp` of 5,000 small files out", _copy(copies.out_of, "many"), rounds=5),
    Case("cp-many-in", "`docker cp` of 5,000 small files in", _copy(copies.into, "many"), rounds=5),
    Case(
        "volume-clone",
        "`wherry volume clone` of 10,000 files and 1 GB, against `cp -a --reflink=auto`",
        volumes.clone,
        aim=ratio(1),
        rounds=5,
        quick_rounds=1,
        against_docker=False,
    ),
    Case(
        "volume-export",
        "`wherry volume export` of it in zstd, against `tar | zstd -T0`",
        volumes.export,
        aim=ratio(1),
        rounds=5,
        quick_rounds=1,
        against_docker=False,
    ),
    Case("volume-list", "list of 5,000 volumes, by the API", volumes.listing, aim=value(50)),
    Case(
        "volume-start",
        "what a volume adds to a start, by the API",
        volumes.start,
        aim=value(1),
        rounds=5,
        quick_rounds=1,
    ),
    Case("network", "`docker run --rm busybox true` on a network of one's own", networks.run_on_one),
    Case(
        "attach", "start on such a network, less a start with `none`", networks.attach, aim=value(8), rounds=5
    ),
    Case(
        "lookup",
        "a name looked up by a container, median of 2,000",
        networks.name_lookup,
        aim=value(0.3),
        rounds=5,
    ),
    Case("tcp", "4 GiB from container to container", networks.between, aim=ratio(1), rounds=5),
    Case("tcp-port", "4 GiB through a published port", networks.through_port, aim=ratio(1), rounds=5),
    Case(
        "build",
        "build of three RUNs and a COPY of 200 files, no cache",
        builds.fresh,
        aim=ratio(1 / 3),
        rounds=5,
    ),
    Case("build-cached", "the same, all cached, with `wherry build -q`", builds.cached, aim=value(100)),
    Case(
        "build-legacy",
        "the same, all cached, by the docker CLI with `DOCKER_BUILDKIT=0`",
        builds.cached_legacy,
        aim=ratio(0.5),
        rounds=9,
    ),
    Case(
        "build-context",
        "build from a context of 20,000 files of which one changed, with `wherry build -q`",
        builds.large_context,
        aim=value(1000),
        rounds=5,
        quick_rounds=1,
    ),
    Case(
        "build-stages",
        "build of four independent stages, part of the time of the same steps in a row",
        builds.stages,
        unit="x",
        aim=value(0.65),
        rounds=3,
        quick_rounds=1,
    ),
    Case(
        "build-memory",
        "peak memory of the daemon over builds, of its largest process",
        builds.peak,
        unit="MiB",
        aim=value(150),
        rounds=3,
        quick_rounds=1,
        warm_up=False,
    ),
    Case(
        "buildx",
        "`docker build` with buildx: three RUNs and a COPY of 200 files, no cache",
        plugins.fresh,
        aim=ratio(1 / 3),
        rounds=5,
    ),
    Case("buildx-cached", "the same, all cached", plugins.cached, aim=ratio(1 / 2), rounds=5),
    Case(
        "buildx-many",
        "`docker build` with buildx: a COPY of 20,000 files of which one changed",
        plugins.many,
        aim=ratio(1 / 2),
        rounds=3,
        quick_rounds=1,
    ),
    Case(
        "buildx-large",
        "`docker build` with buildx: a context of 200 MB, first time",
        plugins.large,
        aim=ratio(0.8),
        rounds=3,
        quick_rounds=1,
    ),
    Case(
        "compose", "`docker compose build` of 4 services, cached", plugins.compose, aim=ratio(1 / 2), rounds=5
    ),
    Case(
        "buildx-memory",
        "peak memory of all the daemon's processes over a build of 20,000 files and one of 200 MB",
        plugins.peak,
        unit="MiB",
        aim=value(200),
        rounds=2,
        quick_rounds=1,
        warm_up=False,
    ),
    Case("port", "start of a container with 1 published port", start_one_port),
    Case(
        "port-beside",
        "the same beside 200 other published ports",
        networks.port_beside,
        rounds=5,
        in_quick=False,
    ),
    Case("ports", "start of a container with 32 published ports", start_many_ports, rounds=5),
    Case(
        "beside", "`docker run --rm busybox true` beside 100 running containers", run_beside, in_quick=False
    ),
)
