"""Receive a client's files into a context, by a confined child."""

from __future__ import annotations

from wherry import threads
from wherry.storage.confined.children import Ending
from wherry.storage.contexts import BuildContext


async def receive_archive(context: BuildContext, stream: int) -> None:
    """Fill a context from an archive.

    :param stream: the descriptor to read it from. If cancelled, the child that reads it is ended.
    """
    ending = Ending()
    await threads.waits.until(ending.end, context.receive, stream, ending)
