"""Limits the rate of wrong passwords, so that guessing a password takes years.

Wrong passwords are counted by account and client network: an attacker locks out his own network, not the
account's owner. To limit attacks from many networks at once, they are also counted by account, with a higher
limit.
"""

from __future__ import annotations

import time
from collections import OrderedDict

WINDOW = 300.0
"""Seconds for which a wrong password is counted."""
FROM_ONE, FROM_ALL = 20, 500
"""The limits of wrong passwords for one account within that time: from one network, and from all."""
_KEYS_MAX = 20_000


class Guesses:
    """Belongs to the loop's thread. Memory is bounded: the oldest entries are dropped first."""

    def __init__(self) -> None:
        self._failures: OrderedDict[tuple[str, str], list[float]] = OrderedDict()

    def wait(self, account: str, network: str) -> int:
        """Seconds until the next password is checked; 0: now."""
        longest = 0
        for key, limit in (((account, network), FROM_ONE), ((account, ""), FROM_ALL)):
            failures = self._recent(key)
            if len(failures) >= limit:
                longest = max(longest, int(failures[-limit] + WINDOW - time.monotonic()) + 1)
        return longest

    def wrong(self, account: str, network: str) -> None:
        for key in ((account, network), (account, "")):
            self._failures.setdefault(key, []).append(time.monotonic())
            self._failures.move_to_end(key)
        while len(self._failures) > _KEYS_MAX:
            self._failures.popitem(last=False)

    def right(self, account: str, network: str) -> None:
        """Reset the count of a network after a correct password: the earlier ones were typing errors."""
        self._failures.pop((account, network), None)

    def _recent(self, key: tuple[str, str]) -> list[float]:
        failures = self._failures.get(key, [])
        horizon = time.monotonic() - WINDOW
        failures[:] = [moment for moment in failures if moment > horizon]
        return failures
