"""``DiskUsage`` and ``Prune``: the same cache that the Engine API shows and prunes."""

from __future__ import annotations

import time
from collections.abc import Mapping

from wherry import threads
from wherry.buildkit import filters
from wherry.buildkit.proto import control_pb2
from wherry.buildkit.proto.control_rpc import Control as Methods
from wherry.buildkit.status import stamp
from wherry.engine.builds.cache import Bounds, CacheUsage
from wherry.engine.builds.service import BuildService
from wherry.rpc.server import Route, ServerCall, on

DiskCall = ServerCall[control_pb2.DiskUsageRequest, control_pb2.DiskUsageResponse]
PruneCall = ServerCall[control_pb2.PruneRequest, control_pb2.UsageRecord]


class CacheUpkeep:
    """Used on the loop."""

    def __init__(self, builds: BuildService) -> None:
        self._builds = builds

    def routes(self) -> list[Route]:
        return [on(Methods.DiskUsage, self.disk_usage), on(Methods.Prune, self.prune)]

    async def disk_usage(
        self, request: control_pb2.DiskUsageRequest, _call: DiskCall
    ) -> control_pb2.DiskUsageResponse:
        test = filters.parse(request.filter)
        usage = await threads.disk(self._builds.cache.usage)
        oldest = time.time_ns() - request.ageLimit if request.ageLimit else 0
        return control_pb2.DiskUsageResponse(
            record=[record(one) for one in usage if test(_fields(one)) and one.row.used >= oldest]
        )

    async def prune(self, request: control_pb2.PruneRequest, call: PruneCall) -> None:
        """Remove records; one message for each."""
        test = filters.parse(request.filter)
        before = time.time_ns() - request.keepDuration if request.keepDuration else None
        bounds = Bounds(reserved=request.reservedSpace, most=request.maxUsedSpace, free=request.minFreeSpace)

        def wanted(one: CacheUsage) -> bool:
            return (
                test(_fields(one))
                and (before is None or one.row.used < before)
                and (request.all or not one.shared)
            )

        known = {one.row.id: one for one in await threads.disk(self._builds.cache.usage)}
        gone, _freed = await threads.disk(self._builds.cache.prune, wanted, bounds)
        for identifier in gone:
            if identifier in known:
                await call.send(record(known[identifier]))


def record(one: CacheUsage) -> control_pb2.UsageRecord:
    row = one.row
    made = control_pb2.UsageRecord(
        ID=row.id,
        Mutable=row.snapshot is None,
        InUse=one.in_use,
        Size=row.size,
        UsageCount=row.uses,
        Description=row.description,
        RecordType=row.kind,
        Shared=one.shared,
        Parents=[row.parent] if row.parent else [],
    )
    made.CreatedAt.CopyFrom(stamp(row.created))
    made.LastUsedAt.CopyFrom(stamp(row.used))
    return made


def _fields(one: CacheUsage) -> Mapping[str, str]:
    row = one.row
    return {
        "id": row.id,
        "parents": row.parent,
        "description": row.description,
        "inuse": str(one.in_use).lower(),
        "mutable": str(row.snapshot is None).lower(),
        "immutable": str(row.snapshot is not None).lower(),
        "type": row.kind,
        "shared": str(one.shared).lower(),
        "private": str(not one.shared).lower(),
    }
