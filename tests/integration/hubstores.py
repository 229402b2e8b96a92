"""What hubs on several machines share, for the tests: PostgreSQL from the distribution, S3 by moto."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import reaper
from freeports import free_port
from hublab import ADMIN, LabHub
from patience import patiently, until

_numbers = itertools.count()
_BINARIES = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
HAVE_POSTGRES = bool(_BINARIES) and os.geteuid() == 0
_KEYS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}


class LabPostgres:
    """A server of its own, on a socket in its own directory, with nothing on the network."""

    def __init__(self) -> None:
        self.base = reaper.keep(Path(tempfile.mkdtemp(prefix="whp")))
        shutil.chown(self.base, "postgres", "postgres")
        self._run("initdb", "-D", str(self.base / "db"), "-A", "trust", "-E", "UTF8", "--no-sync")
        self.process: subprocess.Popen[bytes] | None = None

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [f"{_BINARIES[-1]}/{program}", *arguments], user="postgres", group="postgres", cwd=self.base,
            check=True, capture_output=True, timeout=patiently(120),
        )  # fmt: skip

    def start(self) -> LabPostgres:
        with (self.base / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    f"{_BINARIES[-1]}/postgres", "-D", str(self.base / "db"), "-k", str(self.base), "-h", "",
                    *("-c", "fsync=off"), *("-c", "max_connections=200"), *("-c", "deadlock_timeout=100ms"),
                ],
                user="postgres", group="postgres", cwd=self.base, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log,
            )  # fmt: skip
        until(self._answers, "PostgreSQL answers", seconds=60)
        return self

    def _answers(self) -> bool:
        done = subprocess.run(
            [f"{_BINARIES[-1]}/pg_isready", "-q", "-h", str(self.base)], check=False, capture_output=True
        )
        return done.returncode == 0

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"hub{next(_numbers)}"
        self._run("createdb", "-h", str(self.base), name)
        return f"postgresql://postgres@/{name}?host={self.base}"

    def stop(self, number: int = signal.SIGINT) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(patiently(60))
            self.process = None

    def destroy(self) -> None:
        self.stop()
        shutil.rmtree(self.base, ignore_errors=True)
        reaper.let_go(self.base)


class LabS3:
    """moto's server, which keeps objects in its memory."""

    def __init__(self) -> None:
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.env = {**_KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    def start(self) -> LabS3:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-p", str(self.port)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until(self._answers, "moto answers", seconds=60)
        return self

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def bucket(self) -> str:
        """The URL of a new, empty bucket."""
        import http.client

        name = f"hub-{secrets.token_hex(4)}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patiently(20))
        try:
            signed = "AWS4-HMAC-SHA256 Credential=tests/20260101/us-east-1/s3/aws4_request"
            connection.request("PUT", f"/{name}", headers={"Authorization": signed})
            assert connection.getresponse().status == 200
        finally:
            connection.close()
        return f"s3://{name}/hub"

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(patiently(20))
            self.process = None


@contextlib.contextmanager
def postgres() -> Iterator[LabPostgres]:
    server = LabPostgres()
    try:
        yield server.start()
    finally:
        server.destroy()


@contextlib.contextmanager
def s3() -> Iterator[LabS3]:
    server = LabS3()
    try:
        yield server.start()
    finally:
        server.stop()


@contextlib.contextmanager
def replicas(
    count: int, database: str, objects: str, env: dict[str, str], *more: str
) -> Iterator[list[LabHub]]:
    """Hubs that share a database and an object store."""
    base = reaper.keep(Path(tempfile.mkdtemp(prefix="whh")))
    stores = ["--root", str(base / "root"), "--database", database]
    stores += ["--objects", objects] if objects else []
    labs = [LabHub(base, stores, list(more), env) for _ in range(count)]
    try:
        labs[0].command("migrate")
        labs[0].add_account(*ADMIN, "--admin")
        yield [lab.start() for lab in labs]
        for lab in labs:
            lab.stop()
    finally:
        for lab in labs:
            if lab.process is not None:
                lab.kill()
        shutil.rmtree(base, ignore_errors=True)
        reaper.let_go(base)
