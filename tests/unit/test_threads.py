"""Classes of threads: their bounds, what may wait for what, and what a cancellation leaves behind."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time

import pytest
from patience import patiently

from wherry import threads
from wherry.threads import Pool


def until(condition: object, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.001)


async def begun(event: threading.Event) -> None:
    """Wait until a thread is at work."""
    assert await asyncio.to_thread(event.wait, patiently(10))


async def turns() -> None:
    """Some turns of the loop, in which tasks take the steps that they can."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_no_more_than_the_bound_at_once() -> None:
    pool, gate, running, most = Pool("three", 3), threading.Event(), [0], [0]
    lock = threading.Lock()

    def work(number: int) -> int:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        gate.wait(patiently(5))
        with lock:
            running[0] -= 1
        return number

    async def all_of_them() -> list[int]:
        jobs = [asyncio.create_task(pool(work, n)) for n in range(6)]
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.05, gate.set)
        return await asyncio.gather(*jobs)

    assert asyncio.run(all_of_them()) == [0, 1, 2, 3, 4, 5]
    assert most == [3]


def test_threads_are_used_again() -> None:
    pool, names = Pool("again", 8), set()
    for _ in range(20):
        names.add(pool.submit(threading.get_ident).result(5))
        until(lambda: pool.wait_until_quiet(time.monotonic() + 1))
    assert len(names) == 1


def test_what_waits_in_line_is_never_begun_for_a_caller_that_left() -> None:
    pool, gate, busy, done = Pool("one", 1), threading.Event(), threading.Event(), []

    def work() -> None:
        busy.set()
        gate.wait(patiently(5))

    async def leave() -> None:
        first = asyncio.create_task(pool(work))
        await begun(busy)
        second = asyncio.create_task(pool(done.append, "second"))
        await turns()
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.set()
        await first
        assert await pool(lambda: 1) == 1

    asyncio.run(leave())
    assert done == []


def test_a_cancelled_caller_waits_for_the_end_of_work_to_end() -> None:
    pool, gate, busy, ended = Pool("end", 1), threading.Event(), threading.Event(), []

    def work() -> None:
        busy.set()
        gate.wait(patiently(5))
        ended.append(True)

    async def leave() -> None:
        job = asyncio.create_task(pool.to_end(work))
        await begun(busy)
        job.cancel()
        await turns()
        job.cancel()
        await turns()
        assert not job.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert ended == [True]

    asyncio.run(leave())


def test_what_is_released_surely_is_released_for_a_cancelled_caller_too() -> None:
    """Even if all threads of the class are busy when the caller is cancelled."""
    pool, gate, released, busy = Pool("surely", 1), threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        busy.set()
        gate.wait(patiently(5))

    async def leave() -> None:
        first = asyncio.create_task(pool(work))
        await begun(busy)
        second = asyncio.create_task(pool.surely(released.set))
        await turns()
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert not released.is_set()
        gate.set()
        await first
        await pool(lambda: None)
        assert released.is_set()

    asyncio.run(leave())


def test_work_is_stopped_for_a_cancelled_caller() -> None:
    pool, stop, busy = Pool("stop", 1), threading.Event(), threading.Event()

    def work() -> None:
        busy.set()
        stop.wait(patiently(60))

    async def leave() -> bool:
        job = asyncio.create_task(pool.until(stop.set, work))
        await begun(busy)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        return stop.is_set()

    assert asyncio.run(leave())


def test_errors_and_context_travel() -> None:
    pool, who = Pool("context", 1), contextvars.ContextVar("who", default="nobody")

    async def run() -> str:
        who.set("somebody")
        with pytest.raises(ZeroDivisionError):
            await pool(lambda: 1 / 0)
        return await pool(who.get)

    assert asyncio.run(run()) == "somebody"


def test_a_job_waits_for_the_classes_below_it_alone() -> None:
    low = Pool("low", 1)
    high = Pool("high", 1, below=(low,))
    assert high.submit(lambda: low.submit(lambda: 7).result(5)).result(5) == 7
    for asked in (high, Pool("other", 1)):
        with pytest.raises(RuntimeError, match="must not wait"):
            high.submit(lambda pool=asked: pool.submit(lambda: 1)).result(5)
    with pytest.raises(RuntimeError, match="'low' must not wait for one of 'high'"):
        low.submit(lambda: high.submit(lambda: 1)).result(5)


def test_nobody_waits_for_himself_however_long_the_way() -> None:
    """The classes of the daemon are in an order: none is above itself."""

    def below(pool: Pool) -> set[Pool]:
        return {inner for one in pool._below for inner in {one} | below(one)}

    assert all(pool not in below(pool) for pool in threads.ALL)


def test_drained() -> None:
    async def run() -> list[str]:
        threads.install(asyncio.get_running_loop())
        gate = threading.Event()
        job = threads.short.submit(gate.wait, 5)
        late = await threads.drain(0.05)
        gate.set()
        job.result(5)
        assert await threads.drain(5) == []
        return late

    assert asyncio.run(run()) == ["short"]
