"""Sends spans to a collector, in batches. One that does not answer costs spans, never a request."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from contextlib import suppress

import aiohttp

from wherry import __version__
from wherry.tracing.settings import TraceSettings
from wherry.tracing.spans import Span, request_body

log = logging.getLogger(__name__)
_WAITING_MAX = 4096
"""Spans that may wait; after that the oldest are dropped."""
_BATCH = 512
_EVERY = 5.0
"""Seconds that a span waits for others, at most."""
_AGAIN = (429, 502, 503, 504)
"""Answers after which the same spans may be sent again (OTLP, "Retryable Response Codes")."""


class TraceExporter:
    """Used on the loop's thread only."""

    def __init__(self, settings: TraceSettings) -> None:
        self._settings = settings
        self._waiting: deque[Span] = deque()
        self._dropped = 0
        self._full = asyncio.Event()
        self._sending = asyncio.Lock()
        self._told = ""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=settings.timeout),
            headers={"Content-Type": "application/json", **settings.headers},
        )
        self._task = asyncio.create_task(self._work())

    def take(self, span: Span) -> None:
        if len(self._waiting) >= _WAITING_MAX:
            self._waiting.popleft()
            self._dropped += 1
        self._waiting.append(span)
        if len(self._waiting) >= _BATCH:
            self._full.set()

    async def close(self) -> None:
        """Send what waits, once."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        while self._waiting and await self._send():
            pass
        await self._session.close()

    async def _work(self) -> None:
        while True:
            with suppress(TimeoutError):
                # not wait_for, which before Python 3.12 may swallow a cancellation
                async with asyncio.timeout(_EVERY):
                    await self._full.wait()
            self._full.clear()
            while self._waiting and await self._send():
                pass

    async def _send(self) -> bool:
        """Send a batch; whether it is worth while to go on at once."""
        async with self._sending:  # one at a time, as one that is not taken comes back to its place
            return await self._send_batch()

    async def _send_batch(self) -> bool:
        batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
        body = json.dumps(request_body(batch, self._settings.resource, __version__)).encode()
        try:
            async with self._session.post(self._settings.endpoint, data=body) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            return self._failed(batch, str(e) or type(e).__name__)
        if status in _AGAIN:
            return self._failed(batch, f"status {status}")
        if status >= 400:
            self._tell(f"status {status}")  # they would be refused again
            return True
        self._tell("")
        return True

    def _failed(self, batch: list[Span], why: str) -> bool:
        room = _WAITING_MAX - len(self._waiting)
        self._dropped += max(0, len(batch) - room)
        self._waiting.extendleft(reversed(batch[-room:] if room else []))
        self._tell(why)
        return False

    def _tell(self, why: str) -> None:
        """Each new reason once, not at every batch."""
        if why and why != self._told:
            log.warning("traces are not taken by %s: %s", self._settings.endpoint, why)
        elif not why and self._told:
            log.info("traces are taken again by %s; %d were dropped", self._settings.endpoint, self._dropped)
            self._dropped = 0
        self._told = why
