"""The daemon, watched: what keeps its event loop from turning for 100 ms is written to its log.

Not by the clock on the wall alone, which says more about the machine than about the daemon. Of every call of
the loop two times are taken: the processor time of the loop's thread, which grows with what it does itself,
and the time in which it neither ran nor waited for a processor (``run_delay`` of schedstat), which is what
it waited for: a disk, a lock, another program. The second is scaled by how busy the machine is, as whoever
has the interpreter's lock may be waiting for a processor. A thread notes the stack where it happens.
"""

from __future__ import annotations

import asyncio.events
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

STALL = "the loop stood still"
_PATIENCE = float(os.environ.get("WHERRY_TEST_PATIENCE", "1"))
LIMIT = 0.1 * _PATIENCE
_LOOK = 0.05
_SCHEDSTAT = Path("/proc/thread-self/schedstat")


class Watch:
    def __init__(self) -> None:
        self.thread = 0
        self.since = 0.0
        self.stack = ""
        self.seen = 0.0
        self.serving = False

    def install(self) -> None:
        original = asyncio.events.Handle._run  # type: ignore[attr-defined]
        watch = self

        def run(handle: Any) -> None:
            watch.thread = threading.get_ident()
            delayed, cpu = _delayed(), time.thread_time()
            since = watch.since = time.monotonic()
            try:
                original(handle)
            finally:
                took = time.monotonic() - since
                watch.since = 0.0
                if took > LIMIT and watch.serving:
                    watch.judge(took, time.thread_time() - cpu, _delayed() - delayed, since)

        asyncio.events.Handle._run = run  # type: ignore[attr-defined]
        threading.Thread(target=self.look, name="watch", daemon=True).start()

    def start(self) -> None:
        """From now on others are served, who would wait: before that only the start is slower."""
        self.serving = True

    def judge(self, took: float, cpu: float, delayed: float, since: float) -> None:
        busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        waited = took - cpu - delayed
        if cpu > LIMIT or waited > LIMIT * busy:
            where = self.stack if self.seen == since else "(nobody looked)"
            print(
                f"{STALL}: {cpu * 1e3:.0f} ms at work, {waited * 1e3:.0f} ms waiting\n{where}",
                file=sys.stderr,
            )

    def look(self) -> None:
        while True:
            time.sleep(_LOOK)
            since = self.since
            if since and time.monotonic() - since > LIMIT * 0.6 and self.seen != since:
                frame = sys._current_frames().get(self.thread)
                if frame is not None:
                    self.stack, self.seen = "".join(traceback.format_stack(frame)[-8:]), since


def _delayed() -> float:
    """Seconds that this thread was ready to run and had no processor."""
    try:
        return int(_SCHEDSTAT.read_bytes().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


if __name__ == "__main__":
    from wherry.daemon.entry import imported

    daemon: Any = imported()
    watch, ready = Watch(), daemon._notify_ready

    def notify() -> None:
        watch.start()
        ready()

    daemon._notify_ready = notify
    watch.install()
    sys.exit(daemon.main(sys.argv[1:]))
