"""Rows about volumes: copies of them beside cp(1) and tar(1), long lists, and what one adds to a start.

Both sides of most rows run against wherry's daemon, or on the file system that it is on.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import commands
from engines import BIN, Engine, Lab

NAME = "bench-volume"
FILES, SIZE = 10_000, 100_000
MANY = 5000
_TIMEOUT = 180.0
SLEEP = ("busybox", "sleep", "100000")


def _filled(engine: Engine) -> Path:
    """A volume of 10,000 files and 1 GB. Its directory, once."""
    engine.ask("volume", "create", NAME)
    path = engine.root / "volumes" / NAME / "_data"
    data = os.urandom(SIZE)
    for number in range(0 if any(path.iterdir()) else FILES):
        directory = path / f"d{number // 100:02}"
        directory.mkdir(exist_ok=True)
        (directory / f"f{number:05}").write_bytes(data)
    os.sync()
    return path


@contextlib.contextmanager
def clone(lab: Lab, side: str) -> Iterator[Callable[[], float]]:
    """``wherry volume clone`` against ``cp -a --reflink=auto``. Removing the copy is not measured."""
    engine = lab.engines["wherry"]
    source, other = _filled(engine), engine.directory / "copy"
    argv = [str(BIN / "wherry"), "volume", "clone", NAME, f"{NAME}-2"]
    if side != "wherry":
        argv = ["cp", "-a", "--reflink=auto", str(source), str(other)]

    def once() -> float:
        os.sync()
        taken = commands.timed(argv, engine.environment, timeout=_TIMEOUT) * 1000
        if side == "wherry":
            engine.ask("volume", "rm", f"{NAME}-2", timeout=_TIMEOUT)
        else:
            shutil.rmtree(other)
        return taken

    yield once


@contextlib.contextmanager
def export(lab: Lab, side: str) -> Iterator[Callable[[], float]]:
    """``wherry volume export --compression zstd`` against ``tar -c | zstd -T0``, both to a file."""
    engine = lab.engines["wherry"]
    source, target = _filled(engine), engine.directory / "export"
    wherry = f"{BIN / 'wherry'} volume export --compression zstd -o {target} {NAME}"
    script = wherry if side == "wherry" else f"tar -C {source} -c . | zstd -q -T0 >{target}"

    def once() -> float:
        os.sync()
        taken = commands.timed(["sh", "-c", script], engine.environment, timeout=_TIMEOUT) * 1000
        target.unlink()
        return taken

    yield once


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


def _ask(engine: Engine, method: str, path: str, body: object = None) -> bytes:
    connection = _Connection(engine.socket)
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json"})
        return connection.getresponse().read()
    finally:
        connection.close()


@contextlib.contextmanager
def listing(lab: Lab, side: str) -> Iterator[Callable[[], float]]:
    """``GET /volumes`` of 5,000, by the API."""
    engine = lab.engines[side]
    for number in range(MANY):
        _ask(engine, "POST", "/v1.44/volumes/create", {"Name": f"many-{number}"})

    def once() -> float:
        began = time.perf_counter()
        _ask(engine, "GET", "/v1.44/volumes")
        return (time.perf_counter() - began) * 1000

    yield once
    for number in range(MANY):
        _ask(engine, "DELETE", f"/v1.44/volumes/many-{number}")


def _started(engine: Engine, *options: str) -> float:
    """By the API: a client's own start would be most of the time."""
    identifier = engine.ask("create", "--network", "none", *options, *SLEEP)
    try:
        began = time.perf_counter()
        _ask(engine, "POST", f"/v1.44/containers/{identifier.strip()}/start")
        return (time.perf_counter() - began) * 1000
    finally:
        engine.ask("rm", "-f", identifier.strip())


@contextlib.contextmanager
def start(lab: Lab, side: str) -> Iterator[Callable[[], float]]:
    """A start with a volume less one without: medians of 15, in turn."""
    engine = lab.engines[side]

    def once() -> float:
        pairs = [(_started(engine, "-v", f"{NAME}-s:/v"), _started(engine)) for _ in range(15)]
        return median(with_one for with_one, _ in pairs) - median(without for _, without in pairs)

    yield once
    engine.ask("volume", "rm", f"{NAME}-s")
