"""Which requests wait until containers of an earlier daemon are adopted (``engine/upkeep/adoption``).

A request for one container waits for that container. A request that uses no container's exits, logs, execs,
health checks or leftovers waits for none. Every other request waits for all, so a route that is not listed
here is answered correctly, only later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

_CHANGES_NO_CONTAINER = re.compile(
    r"/(_ping|version|info|events|auth|plugins|system/disk)"
    r"|/containers/(json|create)"
    r"|/(images|distribution|build)(/.*)?"
    r"|/(grpc|session)"
)
_ONLY_READ = re.compile(r"/(networks|volumes|secrets)(/[^/]*)?")


class Adopting(Protocol):
    @property
    def is_over(self) -> bool: ...

    async def of(self, wanted: str) -> None: ...

    async def of_exec(self, exec_id: str) -> None: ...

    async def everyone(self) -> None: ...


async def until_adopted(adoption: Adopting, method: str, path: str, params: Mapping[str, str]) -> None:
    """Return when the request can be answered.

    :param path: without the API version. :param params: the parameters of the route.
    """
    if adoption.is_over:
        return
    if path.startswith("/containers/") and "id" in params:
        await adoption.of(params["id"])
    elif path.startswith("/exec/") and "id" in params:
        await adoption.of_exec(params["id"])
    elif not _waits_for_none(method, path):
        await adoption.everyone()


def _waits_for_none(method: str, path: str) -> bool:
    if _CHANGES_NO_CONTAINER.fullmatch(path):
        return True
    return method in ("GET", "HEAD") and _ONLY_READ.fullmatch(path) is not None
