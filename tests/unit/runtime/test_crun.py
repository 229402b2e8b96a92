"""What is done in place of crun, on a state directory as crun leaves it, and when it is left to crun."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from wherry.linux import cgroups
from wherry.runtime import crun

_ENDED = 2**22 + 1
"""A pid that no process has: it is above the kernel's largest."""


def _state(directory: Path, *, pid: int = _ENDED, hooks: dict[str, Any] | None = None, **more: Any) -> Path:
    status = {
        "pid": pid,
        "process-start-time": 77754,
        "cgroup-path": "/wherry/aca4",
        "scope": "",
        "rootfs": "/run/wherry/tasks/aca4/rootfs",
        "systemd-cgroup": False,
        "bundle": "/run/wherry/tasks/aca4",
        "created": "2026-11-30T20:22:11.931297Z",
        "owner": "root",
        "detached": True,
        "external_descriptors": '["/dev/null","pipe:[65256]","pipe:[65257]"]',
        **more,
    }
    directory.mkdir()
    (directory / "status").write_text(json.dumps(status))
    (directory / "config.json").write_text(json.dumps({"ociVersion": "1.0.2", "hooks": hooks}))
    return directory


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is asked of cgroups."""
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(cgroups, "kill", lambda path: asked.append(("kill", path)))
    monkeypatch.setattr(cgroups, "remove", lambda path: asked.append(("remove", path)))
    return asked


def _with_fifo(directory: Path) -> int:
    """The reading end, as the created process has it."""
    os.mkfifo(directory / crun.FIFO)
    return os.open(directory / crun.FIFO, os.O_RDONLY | os.O_NONBLOCK)


def test_a_created_process_gets_its_byte(tmp_path: Path) -> None:
    directory = _state(tmp_path / "c")
    reader = _with_fifo(directory)
    try:
        assert crun.let_run(directory)
        assert len(os.read(reader, 8)) == 1
        assert not (
            directory / crun.FIFO
        ).exists()  # else crun refuses an exec: the container "is not running"
    finally:
        os.close(reader)


def test_a_process_that_is_killed_in_this_moment_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = _state(tmp_path / "c")
    reader = _with_fifo(directory)
    unlink = Path.unlink

    def dies_then(path: Path) -> None:
        os.close(reader)
        unlink(path)

    monkeypatch.setattr(Path, "unlink", dies_then)
    assert crun.let_run(directory)
    assert not (directory / crun.FIFO).exists()


def test_a_start_that_only_crun_can_refuse(tmp_path: Path) -> None:
    directory = _state(tmp_path / "c")
    assert not crun.let_run(directory)  # started before
    os.close(_with_fifo(directory))
    assert not crun.let_run(directory)  # nobody waits
    assert (directory / crun.FIFO).exists()


def test_hooks_are_cruns(tmp_path: Path, groups: list[tuple[str, str]]) -> None:
    directory = _state(tmp_path / "c", hooks={"poststart": [{"path": "/bin/true"}]})
    reader = _with_fifo(directory)
    try:
        assert not crun.let_run(directory)
        assert not crun.forget(directory)
        assert os.read(reader, 1) == b""  # nobody has written
    finally:
        os.close(reader)
    assert not groups


def test_an_ended_container_is_forgotten(tmp_path: Path, groups: list[tuple[str, str]]) -> None:
    directory = _state(tmp_path / "c")
    assert crun.forget(directory)
    assert not directory.exists()
    assert groups == [("kill", "/wherry/aca4"), ("remove", "/wherry/aca4")]


def test_the_number_of_another_process_is_not_its(tmp_path: Path, groups: list[tuple[str, str]]) -> None:
    assert crun.forget(_state(tmp_path / "c", pid=os.getpid()))


def test_one_that_lives_is_cruns(tmp_path: Path, groups: list[tuple[str, str]]) -> None:
    own = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    assert not crun.forget(_state(tmp_path / "c", pid=os.getpid(), **{"process-start-time": own}))
    assert not groups


@pytest.mark.parametrize(
    "more",
    [
        {"systemd-cgroup": True},
        {"scope": "crun-a.scope"},
        {"intelrdt": "a"},
        {"cgroup-path": "/"},
        {"pid": "x"},
    ],
)
def test_what_is_not_as_described_is_cruns(
    tmp_path: Path, groups: list[tuple[str, str]], more: dict[str, Any]
) -> None:
    directory = _state(tmp_path / "c", **more)
    assert not crun.forget(directory)
    assert directory.exists()
    assert not groups


def test_what_cannot_be_removed_is_cruns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(_path: str) -> None:
        raise OSError(16, "busy")

    monkeypatch.setattr(cgroups, "kill", lambda path: 0)
    monkeypatch.setattr(cgroups, "remove", busy)
    directory = _state(tmp_path / "c")
    assert not crun.forget(directory)
    assert (directory / "status").exists()


def test_a_script_is_not_crun(tmp_path: Path) -> None:
    script = tmp_path / "crun"
    script.write_text("#!/bin/sh\nexec libcrun exec.fifo\n")
    assert not crun.is_crun(str(script))
    assert not crun.is_crun(str(tmp_path / "none"))
