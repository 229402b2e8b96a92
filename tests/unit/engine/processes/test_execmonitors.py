"""Monitors that wait for a start: taken once, or ended, whatever happens."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest
from patience import patiently

from wherry.engine.processes.execmonitors import Monitors
from wherry.errors import Internal
from wherry.runtime.monitor import PendingExec


class _Pending:
    """In place of a PendingExec: a process that waits, known by its directory as conmon is."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory, self.closed = directory, False
        self.process = subprocess.Popen(["sh", "-c", "read x", "conmon", directory], stdin=subprocess.PIPE)
        (directory / "conmon.pid").write_text(str(self.process.pid))

    def close(self) -> None:
        self.closed = True
        assert self.process.stdin is not None
        self.process.stdin.close()


class Lab:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.made: list[_Pending] = []

    def begin(self, name: str) -> Callable[[], PendingExec]:
        def work() -> PendingExec:
            self.made.append(_Pending(self.directory / name))
            return cast(PendingExec, self.made[-1])

        return work

    async def until_made(self, count: int) -> None:
        await _until(lambda: len(self.made) >= count)

    async def until_ended(self, pending: _Pending) -> None:
        """The process is killed before its pipe is closed: else it would go on and run something."""
        await _until(lambda: pending.closed and not pending.directory.exists())
        assert pending.process.wait() == -9

    def close(self) -> None:
        for pending in self.made:
            pending.process.kill()
            pending.process.wait()
            pending.close()


async def _until(condition: Callable[[], bool]) -> None:
    """It becomes true on another thread, which tells nobody."""
    for _ in range(int(patiently(30) * 1000)):
        if condition():
            return
        await asyncio.sleep(0.001)
    pytest.fail("it does not come true")


@pytest.fixture
def lab(tmp_path: Path) -> Any:
    made = Lab(tmp_path)
    yield made
    made.close()


def _run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, patiently(30)))


def test_a_start_takes_it_once(lab: Lab) -> None:
    async def story() -> None:
        monitors = Monitors()
        monitors.expect("a", lab.begin("a"))
        assert await monitors.take("a") is lab.made[0]
        assert await monitors.take("a") is None
        monitors.drop("a")
        monitors.close()
        assert not lab.made[0].closed
        assert lab.made[0].process.poll() is None

    _run(story())


def test_what_nobody_starts_is_ended(lab: Lab) -> None:
    async def story() -> None:
        monitors = Monitors(patience=0.01)
        monitors.expect("a", lab.begin("a"))
        await lab.until_made(1)
        await lab.until_ended(lab.made[0])
        assert await monitors.take("a") is None

    _run(story())


def test_what_is_forgotten_is_ended(lab: Lab) -> None:
    async def story() -> None:
        monitors = Monitors()
        monitors.expect("a", lab.begin("a"))
        await lab.until_made(1)
        monitors.drop("a")
        await lab.until_ended(lab.made[0])

    _run(story())


def test_the_daemons_end_ends_all(lab: Lab) -> None:
    async def story() -> None:
        monitors = Monitors()
        for name in "ab":
            monitors.expect(name, lab.begin(name))
        await lab.until_made(2)
        monitors.close()
        for pending in lab.made:
            await lab.until_ended(pending)

    _run(story())


def test_only_so_many_wait(lab: Lab) -> None:
    async def story() -> None:
        monitors = Monitors(most=1)
        monitors.expect("a", lab.begin("a"))
        monitors.expect("b", lab.begin("b"))
        assert await monitors.take("b") is None
        await lab.until_made(1)
        assert await monitors.take("a") is lab.made[0]
        assert len(lab.made) == 1

    _run(story())


def test_one_that_does_not_begin_is_left_to_the_start() -> None:
    def fails() -> PendingExec:
        raise Internal("no conmon")

    async def story() -> None:
        monitors = Monitors()
        monitors.expect("a", fails)
        assert await monitors.take("a") is None

    _run(story())


def test_a_start_that_is_cancelled_leaves_none(lab: Lab) -> None:
    begun, may_begin = threading.Event(), threading.Event()

    async def story() -> None:
        monitors = Monitors()

        def begin() -> PendingExec:
            begun.set()
            may_begin.wait()
            return lab.begin("a")()

        monitors.expect("a", begin)
        await _until(begun.is_set)
        taking = asyncio.create_task(monitors.take("a"))
        await asyncio.sleep(0)  # it waits now
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        may_begin.set()
        await lab.until_made(1)
        await lab.until_ended(lab.made[0])

    _run(story())
