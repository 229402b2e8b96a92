"""``top``: the container's processes, as listed by the host's ps(1)."""

from __future__ import annotations

import re

from wherry import threads
from wherry.engine.containers.bundle import cgroup_path
from wherry.engine.ground import Ground
from wherry.errors import Conflict, Internal, InvalidArgument
from wherry.linux import cgroups, process

_TIMEOUT = 10.0
_WORDS = re.compile(r"[A-Za-z0-9 ,=_%./+:-]*")


class TopService:
    def __init__(self, ground: Ground) -> None:
        self._settings = ground.settings
        self._containers = ground.containers
        self._live = ground.live

    async def top(self, wanted: str, ps_args: str) -> tuple[list[str], list[list[str]]]:
        """Column titles, and one row per process.

        :raises Conflict: it does not run. :raises InvalidArgument: ps rejects the arguments, or its output
        has no PID column.
        """
        row = self._containers.find(wanted)
        if self._live.get(row.id).task is None:
            raise Conflict(f"container {row.id} is not running")
        if self._containers.find(row.id).state.status == "restarting":
            raise Conflict(f"container {row.id} is restarting")
        arguments = (ps_args or "-ef").split()
        if not _WORDS.fullmatch(ps_args):
            raise InvalidArgument(f"invalid ps arguments: {ps_args[:80]!r}")
        pids = set(cgroups.processes(cgroup_path(row.record, self._settings)))
        try:
            result = await threads.runtime(process.run, ["ps", *arguments], timeout=_TIMEOUT)
        except process.CommandFailed as e:
            if e.exit_code == 127:
                raise Internal("cannot list processes: ps not found; install package procps") from e
            raise InvalidArgument(f"ps: {e.stderr.strip() or e.message}") from e
        return _rows(result.stdout.decode(errors="replace"), pids)


def _rows(output: str, pids: set[int]) -> tuple[list[str], list[list[str]]]:
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    for line in lines[1:]:
        # The last column (the command) may contain spaces.
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            rows.append(fields)
    return titles, rows
