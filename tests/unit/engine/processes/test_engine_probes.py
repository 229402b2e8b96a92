"""Starts of health checks that go wrong: whatever it is, the program that was begun is ended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wherry.engine.processes import probes
from wherry.engine.processes.probes import Prober
from wherry.linux.process import Child
from wherry.runtime.security import SecurityDefaults


class Row:
    id = "a" * 64

    class record:
        class host_config:
            runtime = "r"
            oom_score_adj = 0


class Settings:
    security = SecurityDefaults()

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def task_directory(self, _id: str) -> Path:
        return self.directory


class Programs:
    """A runtime whose program lasts, and says its pid unless it is to be silent."""

    def __init__(self, *, argv: tuple[str, ...] = ("sleep", "1000")) -> None:
        self.argv = argv
        self.begun: list[Child] = []

    def run_beside(self, _id: str, _spec: Path, pid_file: Path, _options: Any, **_more: Any) -> Child:
        child = Child(list(self.argv))
        self.begun.append(child)
        if self.argv[0] == "sleep":
            pid_file.write_text(str(child.pid))
        return child


class Groups:
    """Groups of a container that ends at one moment or another."""

    def __init__(self, fails_in: str) -> None:
        self._fails_in = fails_in

    def _maybe(self, where: str) -> None:
        if where == self._fails_in:
            raise FileNotFoundError(2, "no such group")

    @contextlib.contextmanager
    def starting(self, _path: str, _name: str) -> Iterator[None]:
        self._maybe("starting")
        yield
        self._maybe("started")

    def claim(self, _path: str, _name: str, _pid: int) -> None:
        self._maybe("claim")


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(probes, "process_document", lambda *_arguments: b"{}")
    monkeypatch.setattr(probes, "cgroup_path", lambda *_arguments: "/group")

    def run(programs: Programs, groups: Groups, started: Any = lambda: None) -> Child:
        prober = Prober(settings=Settings(tmp_path), runtimes={"r": programs}, groups=groups)  # type: ignore
        return prober._start(Row(), ["true"], started)  # type: ignore[arg-type]

    return run


def is_over(child: Child) -> bool:
    return child.pidfd == -1 and not Path(f"/proc/{child.pid}").exists()


@pytest.mark.parametrize("where", ["claim", "started"])
def test_the_container_ends_meanwhile(start: Any, where: str) -> None:
    programs = Programs()
    with pytest.raises(FileNotFoundError):
        start(programs, Groups(where))
    assert [is_over(child) for child in programs.begun] == [True]


def test_nothing_was_begun(start: Any) -> None:
    programs = Programs()
    with pytest.raises(FileNotFoundError):
        start(programs, Groups("starting"))
    assert programs.begun == []


def test_the_watch_cannot_be_read(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_path: Path) -> int:
        raise MemoryError

    programs = Programs()
    monkeypatch.setattr(probes, "_pid", fails)
    with pytest.raises(MemoryError):
        start(programs, Groups(""))
    assert [is_over(child) for child in programs.begun] == [True]


def test_whoever_is_told_of_the_start_fails(start: Any) -> None:
    def fails() -> None:
        raise RuntimeError("the loop is closed")

    programs = Programs()
    with pytest.raises(RuntimeError):
        start(programs, Groups(""), fails)
    assert [is_over(child) for child in programs.begun] == [True]


def test_a_command_that_cannot_be_executed(start: Any) -> None:
    programs = Programs(argv=("sh", "-c", "echo no such file; exit 1"))
    with pytest.raises(Exception, match="no such file"):
        start(programs, Groups(""))
    assert [is_over(child) for child in programs.begun] == [True]


def test_one_that_runs(start: Any) -> None:
    told: list[bool] = []
    programs = Programs()
    child = start(programs, Groups(""), lambda: told.append(True))
    assert told == [True] and child.pidfd >= 0
    assert child.close() == -9
