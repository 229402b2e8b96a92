"""The rows of ``docker cp``: one large file and many small ones, out of a running container and into it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from engines import Lab

LARGE = 1_000_000_000
SMALL, SMALL_SIZE = 5000, 4000
NAME = "bench-cp"
_TIMEOUT = 180.0


def _large(path: Path) -> None:
    """Bytes that no file system stores as a hole."""
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for _ in range(LARGE // len(block)):
            file.write(block)


def _many(path: Path) -> None:
    data = os.urandom(SMALL_SIZE)
    for number in range(SMALL):
        directory = path / f"d{number // 100:02}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number:04}").write_bytes(data)


def _source(lab: Lab, name: str) -> Path:
    path = lab.base / name
    if not path.exists():
        (_large if name == "large" else _many)(path)
    return path


@contextlib.contextmanager
def _container(lab: Lab, side: str) -> Iterator[None]:
    engine = lab.engines[side]
    engine.ask("run", "-d", "--name", NAME, "busybox", "sleep", "100000")
    yield
    engine.ask("rm", "-f", NAME)


@contextlib.contextmanager
def into(lab: Lab, side: str, name: str) -> Iterator[Callable[[], float]]:
    """What was copied before is removed first, outside of what is measured, and written back to the disk."""
    source, engine = _source(lab, name), lab.engines[side]
    with _container(lab, side):

        def once() -> float:
            engine.ask("exec", NAME, "rm", "-rf", "/copy")
            os.sync()
            return engine.timed("cp", str(source), f"{NAME}:/copy", timeout=_TIMEOUT) * 1000

        yield once


@contextlib.contextmanager
def out_of(lab: Lab, side: str, name: str) -> Iterator[Callable[[], float]]:
    source, engine = _source(lab, name), lab.engines[side]
    target = lab.base / f"copy-{side}"
    with _container(lab, side):
        engine.ask("cp", str(source), f"{NAME}:/copy", timeout=_TIMEOUT)

        def once() -> float:
            if target.is_dir():
                shutil.rmtree(target)
            target.unlink(missing_ok=True)
            os.sync()
            return engine.timed("cp", f"{NAME}:/copy", str(target), timeout=_TIMEOUT) * 1000

        yield once
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
