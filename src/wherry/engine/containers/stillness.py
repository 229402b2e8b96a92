"""Freeze containers while something reads their files: a commit, a volume's snapshot.

The rows still say ``running``: so the next start of a killed daemon knows that no user paused them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from wherry.engine.containers import bundle
from wherry.engine.ground import Ground
from wherry.errors import Internal
from wherry.linux import cgroups
from wherry.state.containers import ContainerRow


class Stillness:
    def __init__(self, ground: Ground) -> None:
        self._settings, self._containers, self._live = ground.settings, ground.containers, ground.live

    @asynccontextmanager
    async def hold(self, row: ContainerRow, *, freeze: bool) -> AsyncIterator[None]:
        """Freeze a running container that is not frozen yet; thaw it on every way out.

        The container's lock makes a pause, an exit's clean-up and a removal wait; ``frozen`` makes signals
        wait.
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
        """Freeze all of them. Every caller takes them in the same order, so that there is no deadlock."""
        async with AsyncExitStack() as held:
            for row in sorted(rows, key=lambda r: r.id):
                await held.enter_async_context(self.hold(row, freeze=True))
            yield


def _set(how: Callable[[str], None], path: str) -> None:
    try:
        how(path)
    except FileNotFoundError:
        return  # it ended in this moment, and its cgroup is gone
    except OSError as e:
        raise Internal(f"cannot hold the container still: {e.strerror}") from e
