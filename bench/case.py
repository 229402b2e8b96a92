"""What a row of the table is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from engines import Lab

Once = Callable[[], float]
Function = Callable[["Lab", str], AbstractContextManager[Once]]


@dataclass(frozen=True)
class Aim:
    """``ratio``: at most that part of Docker's value. ``value``: at most that much. ``least``: at least."""

    kind: Literal["ratio", "value", "least"]
    most: float

    def text(self, unit: str) -> str:
        sign = "\u2265" if self.kind == "least" else "\u2264"
        return f"{sign} {self.most:g}" + (" x" if self.kind == "ratio" else f" {unit}")


@dataclass(frozen=True)
class Case:
    """:ivar loaded: the aim with as many busy loops as there are processors (``--loaded``)."""

    name: str
    work: str
    function: Function
    unit: str = "ms"
    aim: Aim | None = None
    rounds: int = 10
    quick_rounds: int = 3
    warm_up: bool = True
    against_docker: bool = True
    """False: both sides are clients of wherry's daemon, and Docker's daemon is not needed."""
    in_quick: bool = True
    loaded: Aim | None = None


def ratio(most: float) -> Aim:
    return Aim("ratio", most)


def value(most: float) -> Aim:
    return Aim("value", most)


def least(least: float) -> Aim:
    return Aim("least", least)
