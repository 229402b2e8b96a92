"""Tasks that are cancelled only once: a second cancellation would interrupt the clean-up of the first.

A build can be cancelled from several sides at once: its client closes one call, another call, and its
session.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

T = TypeVar("T")


def cancel_once(task: asyncio.Task[Any]) -> None:
    if not task.done() and not task.cancelling():
        task.cancel()


async def to_end(task: asyncio.Task[T]) -> T:
    """Wait for a task. If this is cancelled, cancel the task once, and return when it has ended."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        cancel_once(task)
        await ended(task)
        raise


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Wait until all have ended, however they end. A cancellation of the waiting task is delivered
    afterwards."""
    cancelled = False
    while pending := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError:
            cancelled = True
    for task in tasks:
        if not task.cancelled():
            task.exception()  # another caller receives the error
    if cancelled:
        raise asyncio.CancelledError
