"""The clients of others as people have them, and the daemon that they are to be content with."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from buildkitlab import VERSIONS, plugins
from daemonlab import Done, LabDaemon, new_base
from patience import patiently

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FETCHED = ROOT / ".cache" / "clients"
NODE = shutil.which("node") or "node"
LONG = 180.0
"""Seconds that a client's whole program may take."""


def fetched(*parts: str) -> Path:
    """Something that ``scripts/fetch-clients`` brings; where it has not, the test is skipped."""
    path = FETCHED.joinpath(*parts)
    if not path.exists():
        pytest.skip("scripts/fetch-clients has not been run (make test-clients does)")
    return path


@contextmanager
def lab_daemon() -> Iterator[LabDaemon]:
    """A daemon with busybox, for the clients of one test."""
    daemon = LabDaemon(new_base())
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


def configuration(daemon: LabDaemon, version: str) -> dict[str, str]:
    """An environment in which the docker CLI has the plugins of ``version``."""
    assert version in VERSIONS
    directory = daemon.base / f"docker-{version}"
    if not directory.exists():
        (directory / "cli-plugins").mkdir(parents=True)
        for name in ("docker-buildx", "docker-compose"):
            (directory / "cli-plugins" / name).symlink_to(plugins() / version / name)
    return {"DOCKER_CONFIG": str(directory)}


def call(
    daemon: LabDaemon,
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    seconds: float = LONG,
    **environment: str,
) -> Done:
    """A client's program against ``daemon``; it fails when it takes too long."""
    result = subprocess.run(
        [str(part) for part in argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=cwd,
        timeout=patiently(seconds),
        env={**daemon.environment, "LANG": "C.UTF-8", **environment},
        check=False,
    )
    return Done(result.returncode, result.stdout, result.stderr)


def content(done: Done) -> str:
    """Standard output of a client that must be content; all it said where it is not."""
    assert done.code == 0, f"exit {done.code}\n{done.out[-6000:]}\n{done.errors[-6000:]}"
    return done.out


def python_path() -> str:
    """PATH with the programs of the fetched environment first."""
    return f"{fetched('python', 'bin')}:{os.environ['PATH']}"
