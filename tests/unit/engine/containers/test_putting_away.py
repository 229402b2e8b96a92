"""Whoever mounts a layer waits until its last file system is closed, and nobody else does."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

from wherry.engine.live import Live


def test_who_waits_has_it_begin_and_waits_for_the_newest() -> None:
    async def story() -> None:
        live = Live("c")
        await live.until_put_away()  # nothing was mounted yet
        begun: list[Future[None]] = []

        def close() -> Future[None]:
            begun.append(Future())
            return begun[-1]

        live.put_away(close)
        assert not begun  # a removal comes first
        waiting = [asyncio.create_task(live.until_put_away()) for _ in range(2)]
        await asyncio.sleep(0)
        assert len(begun) == 1
        live.put_away(close)
        begun[0].set_result(None)
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(begun) == 2
        assert not any(task.done() for task in waiting)
        begun[1].set_exception(OSError("the disk fails"))  # the disk's matter: it is closed all the same
        await asyncio.gather(*waiting)

    asyncio.run(story())


def test_it_begins_by_itself() -> None:
    async def story() -> None:
        live, begun = Live("c"), asyncio.Event()

        def close() -> Future[None]:
            begun.set()
            done: Future[None] = Future()
            done.set_result(None)
            return done

        live.put_away(close)
        await begun.wait()

    asyncio.run(story())
