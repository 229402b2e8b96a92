"""Blocking work of builds that runs a confined child, on a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from wherry.storage.children import Ending

T = TypeVar("T")


async def in_thread(work: Callable[[Ending], T], threads: Executor | None = None) -> T:
    """Run on one of ``threads``, or of the event loop's own.

    Cancelled, the child it runs is ended, and waited for.
    """
    ending = Ending()
    task = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(threads, work, ending))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        ending.end()
        await asyncio.wait([task])
        raise
