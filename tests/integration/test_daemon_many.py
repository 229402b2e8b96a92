"""Much at once: no kind of work takes the threads of another, and a shut-down waits for none of it."""

from __future__ import annotations

import http.client
import io
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from daemonlab import LabDaemon, new_base, wait_until
from leaks import no_leak
from patience import patiently
from slowregistry import SlowRegistry

pytestmark = pytest.mark.kernel

MANY = 40
"""More than twice as many as any class of threads has that everything needs."""


@pytest.fixture(scope="module")
def lab() -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base())
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


@pytest.fixture
def mortal(lab: LabDaemon) -> Iterator[LabDaemon]:
    with no_leak(lab):
        yield lab


def begin_pulls(
    daemon: LabDaemon, registry: SlowRegistry, count: int, stack: ExitStack
) -> list[http.client.HTTPConnection]:
    connections = []
    for number in range(count):
        connection = daemon.connection()
        stack.callback(connection.close)
        connection.request("POST", f"/images/create?fromImage={registry.host}/image-{number}&tag=latest")
        connections.append(connection)
    return connections


def test_everything_works_beside_many_pulls(mortal: LabDaemon, name: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY a.txt /\nRUN cat /a.txt\n")
    (tmp_path / "a.txt").write_text("hello\n")
    with SlowRegistry() as registry, ExitStack() as stack:
        pulls = begin_pulls(mortal, registry, MANY, stack)
        wait_until(lambda: registry.stalled >= 3)
        mortal.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
        assert mortal.docker("exec", name, "echo", "inside").ok() == "inside"
        mortal.docker("images").ok()
        mortal.docker("cp", str(tmp_path / "a.txt"), f"{name}:/a.txt").ok()
        mortal.wherry("build", "-t", f"{name}-built", str(tmp_path)).ok()
        mortal.docker("rm", "-f", name).ok()
        registry.go.set()
        for pull in pulls:
            assert b"Downloaded newer image" in pull.getresponse().read()
    for number in range(MANY):
        mortal.docker("rmi", f"{registry.host}/image-{number}").ok()


def test_many_of_everything_at_once(mortal: LabDaemon, name: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello\n")
    mortal.docker("run", "-d", "--name", name, "busybox", "sh", "-c", "echo printed; exec sleep 1000").ok()

    def build(number: int) -> None:
        context = tmp_path / str(number)
        context.mkdir()
        (context / "Dockerfile").write_text(f"FROM busybox\nRUN echo {number} > /number\n")
        mortal.wherry("build", "-t", f"{name}-{number}", str(context), timeout=120).ok()

    def execute(number: int) -> None:
        assert mortal.docker("exec", name, "echo", str(number), timeout=60).ok() == str(number)

    def copy(number: int) -> None:
        mortal.docker("cp", str(tmp_path / "a.txt"), f"{name}:/a-{number}", timeout=60).ok()

    with ExitStack() as stack, ThreadPoolExecutor(MANY) as clients:
        readers = []
        for _ in range(MANY):
            connection = mortal.connection()
            stack.callback(connection.close)
            connection.request("GET", f"/containers/{name}/logs?follow=1&stdout=1")
            readers.append(connection)
        jobs = [clients.submit(work, n) for n in range(MANY) for work in (execute, copy)]
        jobs += [clients.submit(build, n) for n in range(12)]
        for job in jobs:
            job.result()
        mortal.docker("rm", "-f", name).ok()
        assert all(reader.getresponse().read()[8:] == b"printed\n" for reader in readers)


def test_more_stalled_archives_than_there_are_threads(mortal: LabDaemon, name: str) -> None:
    mortal.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
    with ExitStack() as stack:
        for _ in range(520):
            connection = mortal.connection()
            stack.callback(connection.close)
            connection.putrequest("POST", "/images/load")
            connection.putheader("Content-Length", str(1 << 20))
            connection.endheaders()
            connection.send(b"x" * 100)
        assert mortal.docker("exec", name, "echo", "inside").ok() == "inside"
        mortal.docker("run", "--rm", "busybox", "true").ok()
        mortal.docker("images").ok()


@pytest.mark.parametrize("dead", [True, False], ids=["tries again", "stands still"])
def test_a_stop_waits_for_no_pull(mortal: LabDaemon, dead: bool) -> None:
    with SlowRegistry(dead=dead) as registry, ExitStack() as stack:
        begin_pulls(mortal, registry, 3, stack)
        if dead:
            time.sleep(0.5)  # it has been told off once, and waits for its next try
        else:
            wait_until(lambda: registry.stalled >= 3)
        began = time.monotonic()
        mortal.end()
        took = time.monotonic() - began
        mortal.start()
        registry.go.set()
        if not dead:  # what came of them is continued
            for pull in begin_pulls(mortal, registry, 3, stack):
                assert b"Downloaded newer image" in pull.getresponse().read()
    assert took < patiently(5)  # a second, and what a busy machine adds; a next try comes after more


def test_sizes_are_not_measured_on_the_loop(mortal: LabDaemon, name: str) -> None:
    mortal.docker("create", "--name", name, "busybox", "true").ok()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for number in range(30_000):
            tar.addfile(tarfile.TarInfo(f"many/{number // 100}/{number}"))
    mortal.api("PUT", f"/containers/{name}/archive?path=/", archive.getvalue())
    with ThreadPoolExecutor(4) as clients:
        jobs = [
            clients.submit(mortal.api, "GET", path)
            for path in ("/containers/json?all=1&size=1", f"/containers/{name}/json?size=1") * 2
        ]
        waited = 0.0
        while not all(job.done() for job in jobs):
            began = time.monotonic()
            assert mortal.api("GET", "/_ping").status == 200
            waited = max(waited, time.monotonic() - began)
        sizes = [job.result().json for job in jobs]
    assert sizes[0][0]["SizeRootFs"] > 0 and sizes[1]["SizeRootFs"] > 0
    assert waited < patiently(0.5)
