"""``wherry compose up`` at a terminal: its keys, and the line that names them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from daemonlab import LabDaemon
from labclients import Terminal, on_terminal
from patience import patiently, until
from projectlab import WHERRY, ProjectLab

pytestmark = pytest.mark.kernel
TICKS = "image: busybox, init: true, command: ['sh', '-c', 'while :; do echo tick; sleep 0.2; done']"


@pytest.fixture
def lab(daemon: LabDaemon, tmp_path: Path, name: str) -> Iterator[ProjectLab]:
    made = ProjectLab(daemon, tmp_path, name)
    yield made
    made.end()


def terminal(lab: ProjectLab, *arguments: str, **more: str) -> AbstractContextManager[Terminal]:
    environment = {**lab.daemon.environment, "TERM": "xterm", **more}
    return on_terminal([WHERRY, "compose", *arguments], cwd=lab.where, env=environment)


def ended(screen: Terminal) -> int:
    return screen.process.wait(patiently(60))


def running(lab: ProjectLab) -> list[str]:
    return [name for name, one in lab.containers().items() if one["State"] == "running"]


def test_detaching_leaves_them_running(lab: ProjectLab) -> None:
    lab.file(f"services:\n  web: {{{TICKS}}}\n")
    with terminal(lab, "up") as screen:
        screen.expect(b"tick")
        screen.expect(b"w Enable Watch   d Detach")
        screen.expect(b"tick")
        screen.send(b"d")
        assert ended(screen) == 0
    assert running(lab) == ["web-1"]


def test_the_line_stays_below_the_output(lab: ProjectLab) -> None:
    lab.file(f"services:\n  web: {{{TICKS}}}\n")
    with terminal(lab, "up", NO_COLOR="1") as screen:
        screen.expect(b"d Detach")
        shown = screen.expect(b"tick\r\n") + screen.expect(b"tick\r\n")
        assert shown.count(b"\r\x1b[2Kweb-1  | tick\r\n") >= 1
        screen.send(b"\x03")
        screen.expect(b"Gracefully Stopping... press Ctrl+C again to force")
        assert ended(screen) == 130
    assert running(lab) == []


def test_the_watch_goes_on_and_off(lab: ProjectLab) -> None:
    (lab.where / "page").write_text("one")
    lab.file(
        f"services:\n  web: {{{TICKS}, develop: {{watch: [{{action: sync, path: page, target: /page}}]}}}}\n"
    )
    with terminal(lab, "up") as screen:
        screen.expect(b"tick")
        screen.send(b"w")
        screen.expect(b"Watch enabled")
        screen.expect(b"w Disable Watch")
        (lab.where / "page").write_text("two, and longer")
        screen.expect(b'Syncing service "web" after 1 change was detected')
        until(lambda: "two" in lab.run("exec", "-T", "web", "cat", "/page"))
        screen.send(b"w")
        screen.expect(b"Watch disabled")
        screen.expect(b"w Enable Watch")
        screen.send(b"d")
        assert ended(screen) == 0


def test_a_watch_of_nothing_is_said_and_up_goes_on(lab: ProjectLab) -> None:
    lab.file(f"services:\n  web: {{{TICKS}}}\n")
    with terminal(lab, "up") as screen:
        screen.expect(b"d Detach")
        screen.send(b"w")
        screen.expect(b"none of the selected services is configured for watch")
        screen.expect(b"tick")
        screen.send(b"d")
        assert ended(screen) == 0


@pytest.mark.parametrize("off", [("--menu=false", {}), ("--no-color", {"COMPOSE_MENU": "false"})])
def test_it_can_be_switched_off(lab: ProjectLab, off: tuple[str, dict[str, str]]) -> None:
    lab.file(f"services:\n  web: {{{TICKS}}}\n")
    with terminal(lab, "up", off[0], **off[1]) as screen:
        seen = screen.expect(b"tick") + screen.expect(b"tick")
        screen.send(b"\x03")
        assert ended(screen) == 130
    assert b"Detach" not in seen


def test_without_a_terminal_there_is_none(lab: ProjectLab) -> None:
    lab.file("services:\n  web: {image: busybox, command: echo done}\n")
    assert "Detach" not in lab.run("up")
    lab.run("up", "--menu", code=1)
    assert "--menu needs a terminal" in lab.errors
    lab.run("up", "-d", "--menu", code=1)
    assert "--detach and --menu are incompatible" in lab.errors
