"""Exec groups on the kernel, in each layout that this host can stand in for."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import wait_until

from wherry.linux import cgroups, execgroups
from wherry.linux.cgroups import Layout
from wherry.linux.execgroups import MAIN, ExecGroups

pytestmark = pytest.mark.kernel

REAL = cgroups.layout()
LAYOUTS = {
    "hybrid": Layout(1, REAL.hierarchies, REAL.unified),
    "legacy": Layout(1, REAL.hierarchies, None),
    "unified": Layout(2, {}, REAL.unified),
}


def _top(layout: Layout) -> Path | None:
    return layout.unified if layout.unified is not None else layout.hierarchies.get("freezer")


class Room:
    """A container's cgroup in the hierarchy that keeps track, and processes in it."""

    def __init__(self, top: Path) -> None:
        self.path = f"/wherry-t-{secrets.token_hex(4)}/c"
        self.top = top / self.path.lstrip("/")
        self.top.mkdir(parents=True)
        self.groups = ExecGroups()
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, script: str = "exec sleep 900") -> int:
        """A process at the container's top, as the OCI runtime leaves one: in a session of its own."""
        enter = f"echo $$ > {self.top}/cgroup.procs; exec sh -c '{script}'"
        process = subprocess.Popen(["sh", "-c", enter], start_new_session=True)
        self.started.append(process)
        wait_until(lambda: str(process.pid) in (self.top / "cgroup.procs").read_text().split())
        return process.pid

    def processes(self, name: str) -> list[int]:
        return self.groups.processes(self.path, name)

    def close(self) -> None:
        self.groups.kill(self.path, ".")
        for process in self.started:
            process.kill()
            process.wait()
        for directory, _, _ in os.walk(self.top.parent, topdown=False):
            os.rmdir(directory)


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Layout:
    found = LAYOUTS[request.param]
    if _top(found) is None or not (_top(found) / "cgroup.procs").exists():  # type: ignore[operator]
        pytest.skip("this host has no such hierarchy")
    monkeypatch.setattr(cgroups, "layout", lambda: found)
    return found


@pytest.fixture
def room(layout: Layout) -> Iterator[Room]:
    top = _top(layout)
    assert top is not None
    room = Room(top)
    try:
        yield room
    finally:
        room.close()


def test_an_exec_is_told_from_the_containers_own(room: Room, layout: Layout) -> None:
    own = room.start()
    execgroups.shelter(room.path, own)
    with room.groups.starting(room.path, "exec-1"):
        pid = room.start("sleep 901 & setsid sleep 902 & sleep 903")
        wait_until(lambda: len((room.top / "cgroup.procs").read_text().split()) >= 4)
        room.groups.claim(room.path, "exec-1", pid)
    if layout.version == 2:
        # There the runtime itself starts it in its group.
        assert execgroups.runtime_option("exec-1") == ["--cgroup", "exec-1"]
        return
    assert execgroups.runtime_option("exec-1") == []
    assert room.processes(MAIN) == [own]
    assert len(room.processes("exec-1")) == 4
    room.groups.kill(room.path, "exec-1")
    assert room.processes("exec-1") == []
    assert room.processes(MAIN) == [own]


def test_kill_ends_who_forks_and_ignores_signals(room: Room) -> None:
    script = "trap : TERM; while :; do sleep 905 & sleep 0.02; done"
    (room.top / "g").mkdir()
    pid = room.start(script)
    (room.top / "g" / "cgroup.procs").write_text(str(pid))
    wait_until(lambda: len(room.processes("g")) > 5)
    assert room.groups.signal(room.path, "g", signal.SIGTERM) > 5
    assert not room.groups.remove(room.path, "g")
    room.groups.kill(room.path, "g")
    assert room.processes("g") == []
    wait_until(lambda: room.groups.remove(room.path, "g"))
    assert "g" not in room.groups.names(room.path)


def test_without_cgroup_kill_the_group_is_frozen_first(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on kernels before 5.14, in every layout."""
    write = execgroups._write

    def refuse(path: Path, text: str) -> None:
        if path.name == "cgroup.kill":
            raise FileNotFoundError(path)
        write(path, text)

    monkeypatch.setattr(execgroups, "_write", refuse)
    (room.top / "g").mkdir()
    pid = room.start("while :; do sleep 906 & sleep 0.02; done")
    (room.top / "g" / "cgroup.procs").write_text(str(pid))
    wait_until(lambda: len(room.processes("g")) > 3)
    room.groups.kill(room.path, "g")
    assert room.processes("g") == []


def test_two_that_start_together_share_nothing(room: Room, layout: Layout) -> None:
    if layout.version == 2:
        pytest.skip("the runtime puts each into its own group")
    execgroups.shelter(room.path, room.start())
    with room.groups.starting(room.path, "exec-1"), room.groups.starting(room.path, "exec-2"):
        first, second = room.start("sleep 907 & sleep 907; true"), room.start("sleep 908 & sleep 908; true")
        wait_until(lambda: len((room.top / "cgroup.procs").read_text().split()) == 6)
        room.groups.claim(room.path, "exec-1", first)
        room.groups.claim(room.path, "exec-2", second)
    assert [len(room.processes(name)) for name in ("exec-1", "exec-2")] == [3, 3]


def test_a_killed_daemons_start_is_taken_over(room: Room, layout: Layout) -> None:
    """It died between the runtime's start of the process and the claim."""
    if layout.version == 2:
        pytest.skip("the runtime puts each into its own group")
    room.groups.reclaim(room.path, "probe", os.getpid())
    assert room.processes("probe") == []
    bystander, mine = room.start(), room.start("sleep 901 & wait")
    wait_until(lambda: len((room.top / "cgroup.procs").read_text().split()) == 3)
    room.groups.reclaim(room.path, "probe", mine)
    assert len(room.processes("probe")) == 2
    room.groups.kill(room.path, "probe")
    assert (room.top / "cgroup.procs").read_text().split() == [str(bystander)]


def test_what_is_gone_is_no_trouble(layout: Layout) -> None:
    groups, path = ExecGroups(), "/wherry-t-none/c"
    assert groups.processes(path, "g") == []
    assert groups.names(path) == []
    groups.kill(path, "g")
    assert groups.remove(path, "g")
