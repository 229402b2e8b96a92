"""The real clients of BuildKit's wire: docker's build plugins of two releases, against the lab's daemon."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from daemonlab import DOCKER, Done, LabDaemon
from patience import patiently

ROOT = Path(__file__).parents[2]
VERSIONS = ("old", "new")
"""buildx 0.13.1 with compose 2.26.1, buildx 0.29.1 with compose 2.40.3; see ``scripts/fetch-plugins``."""
TIMEOUT = patiently(60.0)


@cache
def plugins() -> Path:
    """Where the plugins are, one directory a version; fetched where they are not there yet."""
    done = subprocess.run([ROOT / "scripts" / "fetch-plugins"], capture_output=True, text=True, check=False)
    if done.returncode == 75:
        pytest.skip(f"the plugins cannot be fetched: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr
    return ROOT / ".cache" / "plugins"


class BuildClient:
    """The docker CLI with the plugins of one version, and nothing else told to it."""

    def __init__(self, daemon: LabDaemon, version: str) -> None:
        self.daemon, self.version = daemon, version
        self.config = daemon.base / f"docker-{version}"
        directory = self.config / "cli-plugins"
        if not directory.exists():
            directory.mkdir(parents=True)
            for name in ("docker-buildx", "docker-compose"):
                (directory / name).symlink_to(plugins() / version / name)
        self.environment = {"DOCKER_CONFIG": str(self.config)}

    @property
    def is_new(self) -> bool:
        return self.version == "new"

    def docker(
        self, *arguments: str, cwd: Path | None = None, input: bytes = b"", **environment: str
    ) -> Done:
        done = subprocess.run(
            [DOCKER, *arguments],
            input=input,
            capture_output=True,
            timeout=TIMEOUT,
            cwd=cwd,
            env={**self.daemon.environment, **self.environment, **environment},
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def build(self, context: Path | str, *arguments: str, input: bytes = b"") -> Done:
        return self.docker("build", "--progress=plain", *arguments, str(context), input=input)

    def built(self, context: Path | str, *arguments: str, input: bytes = b"") -> Done:
        """A build that must end well."""
        done = self.build(context, *arguments, input=input)
        assert done.code == 0, done.errors
        return done

    def bake(self, directory: Path, *arguments: str) -> Done:
        return self.docker(
            "buildx", "bake", "--progress=plain", *arguments, cwd=directory, BUILDX_BAKE_ENTITLEMENTS_FS="0"
        )

    def compose(self, directory: Path, *arguments: str) -> Done:
        return self.docker("compose", *arguments, cwd=directory)

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A client that runs beside the test, in a group of its own; killed at the end if it still does."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [DOCKER, *arguments],
            env={**self.daemon.environment, **self.environment},
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def metadata(self, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def history(self) -> list[dict[str, Any]]:
        """As the Engine API tells it, newest first."""
        found: list[dict[str, Any]] = self.daemon.api("GET", "/build/history").json
        return found


def steps(done: Done) -> dict[str, str]:
    """Of plain progress: what became of each step (``DONE``, ``CACHED``, ``ERROR``, ``CANCELED``)."""
    names: dict[str, str] = {}
    ended: dict[str, str] = {}
    for line in done.errors.splitlines():
        number, _, rest = line.partition(" ")
        if not number.startswith("#") or not rest:
            continue
        word = rest.split()[0].rstrip(":")
        if number not in names:
            names[number] = rest
        elif word in ("DONE", "CACHED", "ERROR", "CANCELED"):
            ended[number] = word
    return {name: ended.get(number, "") for number, name in names.items()}


def step(done: Done, text: str) -> str:
    """What became of the step whose name has ``text``."""
    found = [how for name, how in steps(done).items() if text in name]
    assert found, f"no step {text!r} in:\n{done.errors}"
    return found[0]


def read_until(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    """Output up to and with ``text``."""
    assert process.stdout is not None
    seen = b""
    deadline = time.monotonic() + TIMEOUT
    while text not in seen:
        assert time.monotonic() < deadline, seen
        piece = os.read(process.stdout.fileno(), 4096)
        assert piece, f"it ended: {seen!r}"
        seen += piece
    return seen
