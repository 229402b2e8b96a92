"""Limits on the rate of pulls: a bucket for each account, and for each network of anonymous clients.

A pull is a GET of a manifest; HEADs are free. Each process has its own buckets, so N replicas allow N times
as many.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from dataclasses import dataclass

from wherry.errors import InvalidArgument
from wherry.hub.core.refusals import Refusal
from wherry.hub.core.rights import Principal
from wherry.hub.registry.addresses import network_of

_BUCKETS_MAX = 50_000
_LIMIT = re.compile(r"([0-9]{1,9})/([0-9]{0,6})([smhd])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Limit:
    """``count`` pulls in ``seconds``. The bucket fills evenly over that time."""

    count: int
    seconds: int


def limit(text: str) -> Limit | None:
    """``100/6h``, ``10/s``; empty is none. :raises InvalidArgument:"""
    if not text:
        return None
    found = _LIMIT.fullmatch(text)
    if found is None or not int(found[1]) or found[2] == "0":
        raise InvalidArgument(f"invalid limit {text!r}: use 100/6h or 10/s")
    return Limit(int(found[1]), int(found[2] or 1) * _UNITS[found[3]])


class RequestLimits:
    def __init__(self, anonymous: Limit | None = None, account: Limit | None = None) -> None:
        self._anonymous, self._account = anonymous, account
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: Principal, address: str, cost: int) -> dict[str, str]:
        """Count a pull (``cost`` 0: only look). :returns: the headers with the remaining number.

        :raises Refusal: ``TOOMANYREQUESTS``.
        """
        which = self._account if caller.known else self._anonymous
        if which is None:
            return {}
        key = f"account:{caller.account}" if caller.known else network_of(address)
        now = time.monotonic()
        left, seen = self._buckets.pop(key, (float(which.count), now))
        left = min(float(which.count), left + (now - seen) * which.count / which.seconds)
        enough = left >= cost
        if enough:
            left -= cost
        self._buckets[key] = (left, now)
        while len(self._buckets) > _BUCKETS_MAX:
            self._buckets.popitem(last=False)
        headers = {
            "RateLimit-Limit": f"{which.count};w={which.seconds}",
            "RateLimit-Remaining": f"{int(left)};w={which.seconds}",
        }
        if not enough:
            wait = int((cost - left) * which.seconds / which.count) + 1
            raise Refusal("TOOMANYREQUESTS", "too many pulls", headers={**headers, "Retry-After": str(wait)})
        return headers
