"""The guard that no test leaves anything behind."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

import pytest
from daemonlab import LabDaemon
from patience import Deadline

SETTLES = 20
"""Seconds within which what a test began has come to its end."""


class no_leak:
    """``with no_leak(daemon):`` fails when what is there afterwards is not what was there before, and
    when the event loop of the daemon stood still meanwhile.

    Whether the block failed or not, everything it made is removed by the API. ``clean`` says afterwards
    whether that has worked: a daemon that is not clean is nothing to test with.
    """

    def __init__(self, daemon: LabDaemon) -> None:
        self.daemon, self.clean = daemon, False

    def __enter__(self) -> no_leak:
        daemon = self.daemon
        self.images, self.tags, self.volumes = daemon.images(), daemon.tags(), daemon.volumes()
        self.networks, self.secrets = daemon.networks(), daemon.secrets()
        self.before = daemon.settled()
        daemon.stalls()  # whoever came before is none of this test's
        return self

    def __exit__(self, kind: type[BaseException] | None, *_details: object) -> None:
        if self.daemon.process is None or self.daemon.process.poll() is not None:
            pytest.fail("the daemon does not run any more", pytrace=False)
        problems = self._removal()
        deadline = Deadline(SETTLES)
        while (left := self.daemon.difference(self.before)) and not deadline.passed:
            problems = self._removal()  # what was under way may have made more
        self.clean = not (left or problems)
        if not self.clean:
            pytest.fail("\n  ".join(["the test left something behind", *problems, *left]), pytrace=False)
        if stalls := self.daemon.stalls():
            pytest.fail("\n".join(stall[:2000] for stall in stalls), pytrace=False)

    def _removal(self) -> list[str]:
        """Remove everything that is there and was not before; what the daemon said where it would not."""
        daemon = self.daemon
        deadline = Deadline(SETTLES)
        while True:
            problems = [
                f"{method} {path}: {answer.status} {answer.text}"
                for method, path in self._requests()
                if (answer := daemon.api(method, path)).status not in (200, 204, 404)
            ]
            if not problems or deadline.passed:
                return problems

    def _requests(self) -> Iterable[tuple[str, str]]:
        daemon = self.daemon
        for container in daemon.containers():
            yield "DELETE", f"/containers/{container}?force=1&v=1"
        for network in daemon.networks() - self.networks:
            yield "DELETE", f"/networks/{network}"
        for volume in daemon.volumes() - self.volumes:
            yield "DELETE", f"/volumes/{volume}?force=1"
        for tag in daemon.tags() - self.tags:
            yield "DELETE", f"/images/{tag}"
        for image in daemon.images() - self.images:
            yield "DELETE", f"/images/{image}?force=1"
        for secret in daemon.secrets() - self.secrets:
            yield "DELETE", f"/secrets/{quote(secret, safe='')}"
        yield "POST", "/build/prune?all=1"
