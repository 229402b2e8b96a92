"""The guard that no test leaves anything behind."""

from __future__ import annotations

import pytest
from daemonlab import LabDaemon, wait_until
from patience import patiently

HANG = 30
"""Seconds after which a whole test is taken to hang; single waits give up after 20."""


class no_leak:
    """``with no_leak(daemon):`` fails when what is there afterwards is not what was there before."""

    def __init__(self, daemon: LabDaemon) -> None:
        self.daemon = daemon

    def __enter__(self) -> None:
        daemon = self.daemon
        self.images, self.tags, self.volumes = daemon.images(), daemon.tags(), daemon.volumes()
        self.networks = daemon.networks()
        self.before = daemon.traces()

    def __exit__(self, kind: type[BaseException] | None, *_details: object) -> None:
        daemon = self.daemon
        daemon.remove_containers()
        for network in daemon.networks() - self.networks:
            daemon.api("DELETE", f"/networks/{network}")
        for volume in daemon.volumes() - self.volumes:
            daemon.api("DELETE", f"/volumes/{volume}")
        for tag in daemon.tags() - self.tags:
            daemon.api("DELETE", f"/images/{tag}")
        for image in daemon.images() - self.images:
            daemon.api("DELETE", f"/images/{image}?force=1")
        daemon.api("POST", "/build/prune?all=1")
        if kind is not None:
            return
        try:
            wait_until(lambda: not daemon.difference(self.before), timeout=patiently(10))
        except AssertionError:
            pytest.fail("\n  ".join(daemon.difference(self.before)))
