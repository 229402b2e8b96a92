"""The room of logs, put together."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.engine.ground import Ground
from wherry.engine.logs.keeping import LogKeeping
from wherry.engine.logs.service import LogService
from wherry.logs.keeper import Keeper


@dataclass(frozen=True)
class LogRoom:
    service: LogService
    keeping: LogKeeping

    async def close(self) -> None:
        await self.keeping.close()


def wire(ground: Ground) -> LogRoom:
    keeper = Keeper()
    keeping = LogKeeping(settings=ground.settings, keeper=keeper, events=ground.events)
    return LogRoom(LogService(ground, keeper=keeper), keeping)
