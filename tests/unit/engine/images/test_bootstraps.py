"""Base images in the making: shared, and ended with the last who wants them."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any, cast

import pytest

from wherry.engine.images.bootstraps import Bootstraps, Progress
from wherry.linux.process import CommandFailed, run
from wherry.model.images import Image

MADE = cast(Image, object())


async def _runs(say: Progress, command: str) -> Image:
    say({"status": "making"})
    context = contextvars.copy_context()
    work = lambda: context.run(run, ["sh", "-c", command], timeout=60)  # noqa: E731
    await asyncio.get_running_loop().run_in_executor(None, work)
    return MADE


def test_who_wants_the_same_joins() -> None:
    begun = 0

    async def main() -> None:
        nonlocal begun
        go = asyncio.Event()
        bootstraps = Bootstraps()

        async def work(say: Progress) -> Image:
            nonlocal begun
            begun += 1
            say({"status": "making"})
            await go.wait()
            return MADE

        told: list[list[dict[str, Any]]] = [[], [], []]
        first = asyncio.create_task(bootstraps.make("a", work, told[0].append))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second = asyncio.create_task(bootstraps.make("a", work, told[1].append))
        third = asyncio.create_task(bootstraps.make("a", work, told[2].append))
        await asyncio.sleep(0)
        assert told == [[{"status": "making"}]] * 3, "who joins is told where it is"
        third.cancel()
        go.set()
        assert await asyncio.gather(first, second) == [MADE, MADE]
        assert begun == 1
        assert await bootstraps.make("a", work, told[0].append) is MADE and begun == 2

    asyncio.run(main())


def test_the_last_who_goes_ends_it() -> None:
    async def main() -> None:
        bootstraps = Bootstraps()
        ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        begun = asyncio.Event()

        async def work(say: Progress) -> Image:
            begun.set()
            try:
                return await _runs(say, "sleep 600 & wait")
            except CommandFailed as e:
                ended.set_result(e)
                raise

        waiting = [asyncio.create_task(bootstraps.make("a", work, lambda _: None)) for _ in range(2)]
        await begun.wait()
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        assert not ended.done()
        waiting[1].cancel()
        error = await asyncio.wait_for(ended, 30)
        assert "it was broken off" in str(error)
        fresh = await bootstraps.make("a", lambda say: _runs(say, "true"), lambda _: None)
        assert fresh is MADE, "the next one begins anew"

    asyncio.run(main())
