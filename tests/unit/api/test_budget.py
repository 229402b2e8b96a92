"""A budget: in the order of asking, all at once or not at all, and nothing lost by who leaves."""

from __future__ import annotations

import asyncio

import pytest

from wherry.api.budget import Budget, Share
from wherry.errors import Unavailable


def test_taken_and_given_back_in_order() -> None:
    async def run() -> None:
        budget = Budget(10, "requests", patience=5)
        first = await budget.take(7)
        order: list[str] = []

        async def ask(name: str, amount: int) -> Share:
            share = await budget.take(amount)
            order.append(name)
            return share

        large, small = asyncio.create_task(ask("large", 8)), asyncio.create_task(ask("small", 1))
        await asyncio.sleep(0.01)
        assert order == [], "the small one does not overtake"
        assert not first.close()
        shares = [await large, await small]
        assert order == ["large", "small"]
        assert [share.close() for share in shares] == [False, True]
        assert not shares[0].close()
        assert budget.taken == 0

    asyncio.run(run())


def test_who_wants_more_than_there_is_gets_all() -> None:
    async def run() -> None:
        budget = Budget(10, "requests", patience=5)
        share = await budget.take(1000)
        assert budget.taken == 10
        assert share.close()

    asyncio.run(run())


def test_who_waits_too_long_or_leaves_takes_nothing() -> None:
    async def run() -> None:
        budget = Budget(10, "requests", patience=0.02)
        first = await budget.take(10)
        leaving = asyncio.create_task(budget.take(5))
        with pytest.raises(Unavailable, match="too many large requests at once"):
            await budget.take(5)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        first.close()
        assert budget.taken == 0
        assert (await budget.take(10)).close()

    asyncio.run(run())
