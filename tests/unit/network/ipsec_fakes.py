"""Kernels that are objects of this process, as far as IPsec needs them."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, Self

from wherry.linux import xfrm
from wherry.linux.netlink import NetlinkError
from wherry.linux.xfrm import Address, Association, XfrmPolicy
from wherry.network.cluster import ipsec


class Killed(BaseException):
    """The daemon is killed in the middle of a call."""


class Kernel:
    """What one host's kernel holds, and every key it was ever given.

    :ivar lacks: the error of every new association, 0 for none. :ivar failing: the share of calls that fail.
    :ivar kills: whether calls may kill the daemon. :ivar taken: whether something was taken away.
    :ivar second: how many associations are made within what the kernel tells as one second.
    """

    def __init__(self, random: Random | None = None) -> None:
        self.random = random or Random(0)
        self.associations: dict[tuple[Address, int], Association] = {}
        self.keys: dict[tuple[Address, int], bytes] = {}
        self.given: list[bytes] = []
        self.rules: dict[tuple[str, Any], XfrmPolicy] = {}
        self.lacks = 0
        self.failing = 0.0
        self.kills = False
        self.taken = False
        self.second = 1
        self._made = 0

    def call(self) -> None:
        if self.kills and self.random.random() < 0.25:
            raise Killed
        if self.random.random() < self.failing:
            raise NetlinkError(errno.ENOMEM)

    def used(self, association: Association) -> None:
        """A packet went by it."""
        at = (association.destination, association.spi)
        found = self.associations[at]
        self.associations[at] = replace(found, packets=found.packets + 1)

    def make(self, association: Association, key: bytes) -> None:
        if self.lacks:
            raise NetlinkError(self.lacks)
        at = (association.destination, association.spi)
        if at in self.associations:
            raise NetlinkError(errno.EEXIST)
        self._made += 1
        self.associations[at] = replace(association, packets=0, added=self._made // self.second)
        self.keys[at] = key
        self.given.append(key)


class Socket:
    """In the place of ``xfrm.XfrmSocket``."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        kernel.call()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add(self, association: Association, key: bytes, port: int) -> None:
        assert port == ipsec.PORT and len(key) == xfrm.KEY_SIZE
        self._kernel.call()
        self._kernel.make(association, key)

    def remove(self, association: Association) -> None:
        self._kernel.call()
        at = (association.destination, association.spi)
        self._kernel.taken |= self._kernel.associations.pop(at, None) is not None

    def associations(self, reqid: int) -> list[Association]:
        self._kernel.call()
        newest_first = reversed(self._kernel.associations.values())  # as the kernel tells them
        return sorted((a for a in newest_first if a.reqid == reqid), key=lambda a: a.added)

    def put_policy(self, policy: XfrmPolicy) -> None:
        self._kernel.call()
        self._kernel.rules[policy.direction, policy.flow] = policy

    def remove_policy(self, policy: XfrmPolicy) -> None:
        self._kernel.call()
        self._kernel.taken |= self._kernel.rules.pop((policy.direction, policy.flow), None) is not None

    def policies(self, port: int) -> list[XfrmPolicy]:
        self._kernel.call()
        return [p for p in self._kernel.rules.values() if p.flow.port == port]


class Watch:
    """In the place of ``xfrm.XfrmWatch``: the test itself says when something is noticed."""

    def __init__(self, _changed: Callable[[], None]) -> None:
        pass

    def close(self) -> None:
        pass
