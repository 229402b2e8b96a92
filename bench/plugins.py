"""The rows of builds by BuildKit's protocol: the same buildx and compose plugins against both engines."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import builds
import commands
from engines import Engine, Lab

Once = Callable[[], float]

PLUGINS = Path(__file__).resolve().parent.parent / ".cache" / "plugins" / "new"
"""Of ``scripts/fetch-plugins``."""
_TIMEOUT = 300.0
_SERVICES = 4
_numbers = itertools.count()


def _environment(engine: Engine) -> dict[str, str]:
    config = engine.directory / "plugins"
    if not config.exists():
        (config / "cli-plugins").mkdir(parents=True)
        for name in ("docker-buildx", "docker-compose"):
            (config / "cli-plugins" / name).symlink_to(PLUGINS / name)
    return {**engine.environment, "DOCKER_CONFIG": str(config)}


def _timed(engine: Engine, *arguments: str) -> float:
    """Milliseconds of the docker CLI with the plugins."""
    return commands.timed([engine.cli, *arguments], _environment(engine), timeout=_TIMEOUT) * 1000


def _build(engine: Engine, context: Path, *arguments: str) -> float:
    return _timed(engine, "build", "-q", *arguments, str(context))


@contextlib.contextmanager
def fresh(lab: Lab, side: str) -> Iterator[Once]:
    context, engine = builds.make_context(lab, "small", builds.FILES), lab.engines[side]
    yield lambda: _build(engine, context, "--no-cache")


@contextlib.contextmanager
def cached(lab: Lab, side: str) -> Iterator[Once]:
    context, engine = builds.make_context(lab, "small", builds.FILES), lab.engines[side]
    _build(engine, context)
    yield lambda: _build(engine, context)


@contextlib.contextmanager
def many(lab: Lab, side: str) -> Iterator[Once]:
    """One of 20,000 files changes before each build, and all of them are copied."""
    context, engine = builds.make_context(lab, "large", builds.MANY), lab.engines[side]
    (context / "Dockerfile").write_text("FROM busybox\nCOPY files /files\n")
    _build(engine, context)

    def once() -> float:
        (context / "files/d001/f00100").write_text(f"changed {next(_numbers)} {time.time_ns()}")
        os.sync()
        return _build(engine, context)

    yield once


@contextlib.contextmanager
def large(lab: Lab, side: str) -> Iterator[Once]:
    """200 MB that the engine has never seen, and a step that reads them."""
    engine = lab.engines[side]
    context = lab.base / f"big-{side}"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text("FROM busybox\nCOPY big /big\n")

    def once() -> float:
        (context / "big").write_bytes(os.urandom(200_000_000))
        os.sync()
        return _build(engine, context)

    yield once
    shutil.rmtree(context)


@contextlib.contextmanager
def compose(lab: Lab, side: str) -> Iterator[Once]:
    engine = lab.engines[side]
    project = lab.base / f"compose-{side}"
    project.mkdir(exist_ok=True)
    services = "".join(
        f"  s{n}:\n    build:\n      context: .\n      args: {{WHO: s{n}}}\n" for n in range(_SERVICES)
    )
    (project / "compose.yaml").write_text(f"name: bench\nservices:\n{services}")
    (project / "Dockerfile").write_text("FROM busybox\nARG WHO\nCOPY file /file\nRUN echo $WHO > /who\n")
    (project / "file").write_text("content")
    arguments = ("compose", "--project-directory", str(project), "build", "-q")
    _timed(engine, *arguments)
    yield lambda: _timed(engine, *arguments)
    shutil.rmtree(project)


@contextlib.contextmanager
def peak(lab: Lab, side: str) -> Iterator[Once]:
    """All processes of an engine that was started for it, looked at every 20 ms, over a build of 20,000
    files and one of 200 MB."""
    context = builds.make_context(lab, "large", builds.MANY)
    big = lab.base / f"peak-{side}"
    big.mkdir(exist_ok=True)
    (big / "big").write_bytes(os.urandom(200_000_000))
    for path in (context, big):
        (path / "Dockerfile").write_text("FROM busybox\nCOPY . /files\n")

    def once() -> float:
        with lab.fresh(side) as engine:
            builds.give_image(lab, engine)
            with builds.watched(engine) as most:
                _build(engine, context)
                _build(engine, big)
            return most()

    yield once
    shutil.rmtree(big)
