"""Pulls and pushes: docker-registry in the room of each engine, with the same image in all of them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import archive
from commands import Failed
from engines import Engine, Lab, memory

SIZE = 900 << 20
PORT = 5123
NAME = f"127.0.0.1:{PORT}/bench/image:latest"
_LOOK = 0.05
_TIMEOUT = 300.0


@contextlib.contextmanager
def registry(store: Path, prefix: list[str], port: int = PORT) -> Iterator[None]:
    """The registry, run by ``prefix`` (nsenter into a room), for as long as the ``with``."""
    config = store.parent / f"registry-{port}.json"
    config.write_text(
        json.dumps(
            {
                "version": "0.1",
                "log": {"level": "error", "accesslog": {"disabled": True}},
                "storage": {"filesystem": {"rootdirectory": str(store)}},
                "http": {"addr": f"127.0.0.1:{port}"},
            }
        )
    )
    environment = {"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"}
    process = subprocess.Popen(
        [*prefix, "docker-registry", "serve", str(config)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def seeded(lab: Lab) -> Path:
    """Where the registry's files are, with the image in it; made once."""
    store = lab.base / "registry"
    if store.is_dir():
        return store
    if missing := [p for p in ("docker-registry", "skopeo") if not shutil.which(p)]:
        raise Failed(f"not installed: {', '.join(missing)}")
    path = lab.base / "image.tar"
    archive.write(path, repository="bench/image", size=SIZE)
    store.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with registry(store, [], port):
        _wait(
            ["skopeo", "inspect", "--tls-verify=false", f"docker://127.0.0.1:{port}/x/y"],
            "connection refused",
        )
        copy = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]
        target = f"docker://127.0.0.1:{port}/bench/image:latest"
        subprocess.run([*copy, f"docker-archive:{path}", target], check=True, timeout=_TIMEOUT)
    path.unlink()
    return store


def _wait(argv: list[str], unlike: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if unlike not in done.stderr:
            return
        time.sleep(0.05)
    raise Failed("the registry does not answer")


@contextlib.contextmanager
def _engine(lab: Lab, side: str) -> Iterator[Engine]:
    """A fresh engine with the registry on its loopback."""
    store = seeded(lab)
    with lab.fresh(side) as engine:
        enter = ["nsenter", f"--net=/proc/{engine.room_pid}/ns/net", "--"]
        with registry(store, enter):
            _wait(
                [*enter, "skopeo", "inspect", "--tls-verify=false", f"docker://{NAME}"], "connection refused"
            )
            os.sync()
            yield engine


def _timed(lab: Lab, side: str, before: list[tuple[str, ...]], what: tuple[str, ...]) -> float:
    with _engine(lab, side) as engine:
        for argv in before:
            engine.timed(*argv, timeout=_TIMEOUT)
        os.sync()
        return engine.timed(*what, timeout=_TIMEOUT) * 1000


def pull(lab: Lab, side: str) -> float:
    return _timed(lab, side, [], ("pull", "-q", NAME))


def pull_again(lab: Lab, side: str) -> float:
    return _timed(lab, side, [("pull", "-q", NAME)], ("pull", "-q", NAME))


def push_known(lab: Lab, side: str) -> float:
    return _timed(lab, side, [("pull", "-q", NAME)], ("push", "-q", NAME))


def save_and_load(lab: Lab, side: str) -> float:
    with _engine(lab, side) as engine:
        engine.timed("pull", "-q", NAME, timeout=_TIMEOUT)
        path = str(lab.base / "saved.tar")
        saved = engine.timed("save", "-o", path, NAME, timeout=_TIMEOUT)
    with lab.fresh(side) as engine:
        os.sync()
        loaded = engine.timed("load", "-q", "-i", path, timeout=_TIMEOUT)
    os.unlink(path)
    return (saved + loaded) * 1000


def peak(lab: Lab, side: str) -> float:
    """MiB: the most that all processes of the engine had together, looked at every 50 ms."""
    with _engine(lab, side) as engine:
        most, done = 0.0, threading.Event()

        def watch() -> None:
            nonlocal most
            while not done.wait(_LOOK):
                with contextlib.suppress(Failed, OSError):
                    most = max(most, memory(list(engine.processes()), "Pss"))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            engine.timed("pull", "-q", NAME, timeout=_TIMEOUT)
        finally:
            done.set()
            watcher.join()
        return most


def repeated(
    once: Callable[[Lab, str], float],
) -> Callable[[Lab, str], contextlib.AbstractContextManager[Callable[[], float]]]:
    @contextlib.contextmanager
    def case(lab: Lab, side: str) -> Iterator[Callable[[], float]]:
        seeded(lab)
        yield lambda: once(lab, side)

    return case
