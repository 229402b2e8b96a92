"""Container statistics: one reading per second of each watched container, shared by all its listeners.

There is one timer for all containers, and it runs only while somebody listens. A pass reads and encodes on a
thread; all listeners get the same bytes. A slow listener skips readings and gets the newest one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from wherry import threads
from wherry.engine.containers.bundle import cgroup_path
from wherry.engine.ground import Ground
from wherry.errors import NotFound
from wherry.linux.cgroup_stats import Sampler, host_cpu
from wherry.model.container import Container
from wherry.model.stats import Sample
from wherry.state.containers import ContainerRow

log = logging.getLogger(__name__)

_EVERY = 1.0
"""Seconds between readings."""
_RENAMES = 10
"""Passes after which container names are looked up again."""


class _Slot:
    """The newest reading for one listener. ``None`` marks the end."""

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None
        self._held: bytes | None = None
        self._full = False

    def put(self, data: bytes | None) -> None:
        self._held, self._full = data, True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> bytes | None:
        if not self._full:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._full = False
        return self._held


class _Watch:
    """One container that has listeners."""

    def __init__(self, record: Container, name: str) -> None:
        self.record, self.name = record, name
        self.slots: set[_Slot] = set()
        self.sampler: Sampler | None = None
        self.data = b""
        self.has_rates = False

    @property
    def id(self) -> str:
        return self.record.id


@dataclass(frozen=True)
class Reading:
    """One container and what it uses now; ``None`` if it does not run."""

    row: ContainerRow
    sample: Sample | None


class StatsService:
    """``encode`` and ``encode_stopped`` come from the face: a reading is encoded once, for all listeners."""

    def __init__(
        self,
        ground: Ground,
        *,
        encode: Callable[[Sample], bytes],
        encode_stopped: Callable[[str, str], bytes],
    ) -> None:
        self._settings = ground.settings
        self._containers = ground.containers
        self._live = ground.live
        self._encode = encode
        self._encode_stopped = encode_stopped
        self._watches: dict[str, _Watch] = {}
        self._everybody: set[_Slot] = set()
        self._passing: asyncio.Task[None] | None = None
        self._timer: asyncio.Handle | None = None
        self._next = 0.0
        self._passes = 0

    # ---- what handlers call ----------------------------------------------------------------------------

    def check(self, wanted: str) -> str:
        """The container's id. :raises NotFound: there is none."""
        return self._containers.find(wanted).id

    async def once(self, wanted: str, *, one_shot: bool) -> bytes:
        """A reading with rates, which takes up to a second. With ``one_shot``: without rates, at once.

        A container that does not run is answered at once.
        """
        row = self._containers.find(wanted)
        if self._live.get(row.id).task is None:
            return self._encode_stopped(row.id, row.name)
        if one_shot:
            alone = _Watch(row.record, row.name)
            await threads.short(self._read_once, alone)
            return alone.data
        async with self._watching(row.id) as (watch, slot):
            while (data := await slot.get()) is not None:
                if watch.has_rates or watch.sampler is None:
                    return data
        return self._encode_stopped(row.id, row.name)

    async def read(self, rows: Sequence[ContainerRow]) -> list[Reading]:
        """A reading of each container, without rates."""
        tasks = [(row, self._live.get(row.id).task) for row in rows]
        return await threads.short(self._read_rows, [(row, task.pid if task else 0) for row, task in tasks])

    def _read_rows(self, work: Sequence[tuple[ContainerRow, int]]) -> list[Reading]:
        host, online = host_cpu(), len(os.sched_getaffinity(0))
        found = []
        for row, pid in work:
            sample = None
            if pid:
                sampler = self._sampler(row.record, pid)
                sample = sampler.sample(row.name, host, online)
                sampler.close()
            found.append(Reading(row, sample))
        return found

    def _sampler(self, record: Container, pid: int) -> Sampler:
        own_network = record.host_config.network_mode != "host"
        return Sampler(record.id, cgroup_path(record, self._settings), pid, networks=own_network)

    async def stream(self, container_id: str) -> AsyncIterator[bytes]:
        """A reading every second until the container is removed;
        the first one at once if nobody else watches."""
        async with self._watching(container_id) as (_watch, slot):
            while (data := await slot.get()) is not None:
                yield data

    async def everybody(self, *, stopped: bool, stream: bool) -> AsyncIterator[bytes]:
        """A JSON array every second with the readings of all running containers, or of all containers.

        Without ``stream``: one array, with rates.
        """
        slot = _Slot()
        self._everybody.add(slot)
        self._wake()
        passes = 0
        try:
            while await slot.get() is not None:
                passes += 1
                if stream or passes == 2 or all(w.has_rates for w in self._watches.values() if w.sampler):
                    yield self._all(stopped=stopped)
                    if not stream:
                        return
        finally:
            self._everybody.discard(slot)
            self._sweep()

    def _all(self, *, stopped: bool) -> bytes:
        documents = [watch.data.rstrip() for watch in self._watches.values() if watch.sampler is not None]
        if stopped:
            documents += [
                self._encode_stopped(row.id, row.name).rstrip()
                for row in self._containers.all()
                if self._live.get(row.id).task is None
            ]
        return b"[" + b",".join(documents) + b"]\n"

    # ---- who watches what ------------------------------------------------------------------------------

    @asynccontextmanager
    async def _watching(self, container_id: str) -> AsyncIterator[tuple[_Watch, _Slot]]:
        slot = _Slot()
        watch = self._watch(container_id)
        watch.slots.add(slot)
        if watch.data:
            slot.put(watch.data)
        self._wake()
        try:
            yield watch, slot
        finally:
            watch.slots.discard(slot)
            self._sweep()

    def _watch(self, container_id: str) -> _Watch:
        watch = self._watches.get(container_id)
        if watch is None:
            row = self._containers.find(container_id)
            watch = self._watches[container_id] = _Watch(row.record, row.name)
        return watch

    def _sweep(self) -> None:
        """Stop watching containers without listeners.
        Not during a pass: its thread still uses their files."""
        if self._passing is not None:
            return  # The sweep follows at the end of the pass.
        for watch in list(self._watches.values()):
            if not watch.slots and not (self._everybody and watch.sampler is not None):
                del self._watches[watch.id]
                _close(watch)
        if not self._watches and not self._everybody and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- passes ----------------------------------------------------------------------------------------

    def _wake(self) -> None:
        """The first listener starts a pass at once; later ones join the next pass."""
        if self._passing is None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        self._next = max(self._next, loop.time() - _EVERY) + _EVERY
        if self._next <= loop.time():
            self._next = loop.time() + _EVERY
        self._passes += 1
        self._passing = loop.create_task(self._pass())
        self._passing.add_done_callback(self._passed)

    async def _pass(self) -> None:
        if self._everybody:
            for live in self._live.running():
                try:
                    self._watch(live.id)
                except NotFound:
                    continue
        if self._passes % _RENAMES == 0:
            for watch in self._watches.values():
                self._exists(watch)
        work = [(watch, self._task_pid(watch)) for watch in self._watches.values()]
        await threads.short(self._read, work)
        for watch, pid in work:
            if pid == 0 and not self._exists(watch):
                watch.data = b""
                for slot in watch.slots:
                    slot.put(None)
                continue
            for slot in watch.slots:
                slot.put(watch.data)
        for slot in self._everybody:
            slot.put(b"")

    def _task_pid(self, watch: _Watch) -> int:
        task = self._live.get(watch.id).task
        return task.pid if task is not None else 0

    def _exists(self, watch: _Watch) -> bool:
        try:
            watch.name = self._containers.find(watch.id).name
        except NotFound:
            self._live.drop(watch.id)
            return False
        return True

    def _read(self, work: list[tuple[_Watch, int]]) -> None:
        """Runs on a thread, never two at once."""
        host, online = host_cpu(), len(os.sched_getaffinity(0))
        for watch, pid in work:
            if watch.sampler is not None and watch.sampler.pid != pid:
                _close(watch)
            if watch.sampler is None and pid:
                watch.sampler = self._sampler(watch.record, pid)
            sample = watch.sampler.sample(watch.name, host, online) if watch.sampler is not None else None
            if sample is None:
                _close(watch)
                watch.data = self._encode_stopped(watch.id, watch.name)
            else:
                watch.has_rates = sample.read_before != 0
                watch.data = self._encode(sample)

    def _read_once(self, watch: _Watch) -> None:
        self._read([(watch, self._task_pid(watch))])
        _close(watch)

    def _passed(self, task: asyncio.Task[None]) -> None:
        self._passing = None
        if not task.cancelled() and task.exception() is not None:
            log.error("cannot read what containers use", exc_info=task.exception())
        self._sweep()
        if self._watches or self._everybody:
            self._timer = asyncio.get_running_loop().call_at(self._next, self._begin)

    async def close(self) -> None:
        """End every stream and close the files."""
        passing = self._passing
        if passing is not None:
            await asyncio.wait([passing])
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for slot in [*self._everybody, *(s for w in self._watches.values() for s in w.slots)]:
            slot.put(None)
        for watch in self._watches.values():
            _close(watch)


def _close(watch: _Watch) -> None:
    if watch.sampler is not None:
        watch.sampler.close()
        watch.sampler = None
        watch.has_rates = False
