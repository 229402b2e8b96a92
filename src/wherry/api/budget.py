"""A limit on the memory that all requests hold together.

Each request has a limit of its own, but a thousand requests together do not. A request that will hold much
memory reserves all of it first, in one step: if each of two requests held a part and waited for the rest,
both would wait for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque

from wherry.errors import Unavailable


class Budget:
    """Used on the loop only. Reservations are granted in the order in which they were asked for."""

    def __init__(self, total: int, what: str, *, patience: float) -> None:
        """:param patience: the longest wait, in seconds."""
        self._total, self._left, self._what, self._patience = total, total, what, patience
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def taken(self) -> int:
        return self._total - self._left

    async def take(self, amount: int) -> Share:
        """Wait for ``amount``; a request for more than the whole budget gets all of it.

        :raises Unavailable: other requests held the memory for longer than ``patience``.
        """
        amount = min(amount, self._total)
        if self._waiting or amount > self._left:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((amount, turn))
            try:
                await asyncio.wait_for(asyncio.shield(turn), self._patience)
            except (TimeoutError, asyncio.CancelledError) as e:
                if turn.done() and not turn.cancelled():
                    self._give(amount)  # it was granted at the same moment
                else:
                    self._waiting = deque(one for one in self._waiting if one[1] is not turn)
                    self._serve()
                if isinstance(e, TimeoutError):
                    raise Unavailable(f"too many large {self._what} at once: try again later") from e
                raise
        else:
            self._left -= amount
        return Share(self, amount)

    def _give(self, amount: int) -> None:
        self._left += amount
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._left:
            amount, turn = self._waiting.popleft()
            if not turn.done():
                self._left -= amount
                turn.set_result(None)


class Share:
    """A part of a budget; :meth:`close` gives it back."""

    def __init__(self, budget: Budget, amount: int) -> None:
        self._budget, self._amount = budget, amount

    def close(self) -> bool:
        """Return the share. Returns whether the whole budget is free now, and was not before."""
        amount, self._amount = self._amount, 0
        if amount:
            self._budget._give(amount)
        return bool(amount) and not self._budget.taken
