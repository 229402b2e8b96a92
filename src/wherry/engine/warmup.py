"""Work begun before it is asked for: a client that creates a container or an exec starts it next."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor

from wherry.linux import cgroups

log = logging.getLogger(__name__)
# A thread of its own: the wait is the kernel's, and nobody else's work should stand behind it.
_thread = ThreadPoolExecutor(1, "warmup")


def expect_start() -> None:
    """A process will soon enter a new cgroup: see ``cgroups.ease_attach``. Returns at once."""
    _thread.submit(cgroups.ease_attach).add_done_callback(_report)


def _report(done: Future[None]) -> None:
    if (error := done.exception()) is not None:
        log.warning("cannot prepare for a start: %s", error)
