"""The fake daemon of the client's tests, and a command line that talks to it."""

from __future__ import annotations

import sys
import tracemalloc  # noqa: F401 - see below
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "client"))

from fakedaemon import FakeDaemon, Route

from wherry.cli.main import main

# A command leaves its streams to the end of its process, which does not come in these tests. pytest imports
# tracemalloc when the first of them is collected, and fails when another one is collected meanwhile.

Run = Callable[..., tuple[int, str, str]]
Serve = Callable[[dict[str, Route]], FakeDaemon]


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the machine's daemon or configuration, and every test sees one time zone."""
    for name in ("WHERRY_HOST", "DOCKER_HOST", "DOCKER_CONTEXT", "WHERRY_CONFIG", "DOCKER_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    running: list[FakeDaemon] = []

    def start(routes: dict[str, Route]) -> FakeDaemon:
        daemon = FakeDaemon(tmp_path / f"fake{len(running)}.sock", routes)
        daemon.__enter__()
        running.append(daemon)
        return daemon

    yield start
    for daemon in running:
        daemon.__exit__(None, None, None)


@pytest.fixture
def wherry(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process: exit code, stdout, stderr."""

    def run(daemon: FakeDaemon | None, *argv: str) -> tuple[int, str, str]:
        host = ["-H", daemon.host] if daemon else ["-H", "unix:///nonexistent/wherry.sock"]
        code = main([*host, *argv])
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return code, out, err

    return run
