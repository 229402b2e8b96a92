"""Work done ahead of a request: a client that creates a container or an exec will start it next."""

from __future__ import annotations

import logging
from concurrent.futures import Future

from wherry import threads
from wherry.linux import cgroups

log = logging.getLogger(__name__)


def expect_start() -> None:
    """A process will soon enter a new cgroup: see ``cgroups.ease_attach``. Returns at once."""
    threads.warmup.submit(cgroups.ease_attach).add_done_callback(_report)


def _report(done: Future[None]) -> None:
    if (error := done.exception()) is not None:
        log.warning("cannot prepare for a start: %s", error)
