"""Whoever mounts a layer waits until its last file system is closed, and nobody else does."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

from wherry.engine.live import Live


def test_it_waits_for_the_newest() -> None:
    async def story() -> None:
        live = Live("c")
        await live.until_put_away()  # nothing was mounted yet
        first: Future[None] = Future()
        second: Future[None] = Future()
        live.putting_away(first)
        waiting = [asyncio.create_task(live.until_put_away()) for _ in range(2)]
        await asyncio.sleep(0)
        live.putting_away(second)
        first.set_result(None)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        second.set_exception(OSError("the disk fails"))  # the disk's matter: it is closed all the same
        await asyncio.gather(*waiting)

    asyncio.run(story())
