"""Holding containers still while something reads what they write: a commit, a volume's snapshot.

The rows go on saying ``running``: so the next start of a killed daemon knows that no user paused them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from wherry.engine import bundle
from wherry.engine.live import LiveSet
from wherry.engine.settings import Settings
from wherry.errors import Internal
from wherry.linux import cgroups
from wherry.state.containers import ContainerRow, Containers


class Stillness:
    def __init__(self, *, settings: Settings, containers: Containers, live: LiveSet) -> None:
        self._settings, self._containers, self._live = settings, containers, live

    @asynccontextmanager
    async def hold(self, row: ContainerRow, *, freeze: bool) -> AsyncIterator[None]:
        """Freeze what runs and is not frozen yet; thaw it on every way out.

        The container's lock keeps a pause, an exit's clean-up and a removal behind it, ``frozen`` signals.
        """
        live = self._live.get(row.id)
        async with live.lock:
            now = self._containers.find(row.id).state.status
            if not (freeze and live.task is not None and now == "running"):
                yield
                return
            path = bundle.cgroup_path(row.record, self._settings)
            live.frozen = True
            try:
                _set(cgroups.freeze, path)
                yield
            finally:
                live.frozen = False
                if live.task is not None:
                    _set(cgroups.thaw, path)

    @asynccontextmanager
    async def hold_all(self, rows: Sequence[ContainerRow]) -> AsyncIterator[None]:
        """All of them at once, in the same order whoever asks."""
        async with AsyncExitStack() as held:
            for row in sorted(rows, key=lambda r: r.id):
                await held.enter_async_context(self.hold(row, freeze=True))
            yield


def _set(how: Callable[[str], None], path: str) -> None:
    try:
        how(path)
    except FileNotFoundError:
        return  # it ended in this moment, and its cgroup went
    except OSError as e:
        raise Internal(f"cannot hold the container still: {e.strerror}") from e
