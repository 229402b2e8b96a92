"""What Docker's clients and scripts match on, word for word as Docker Engine 28.5 said it."""

from __future__ import annotations

import pytest
from daemonlab import LabDaemon

pytestmark = pytest.mark.kernel
POLICIES = "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
STATES = "created, running, paused, restarting, removing, exited, dead"


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (
            "run -v /x:rel busybox true",
            125,
            "invalid mount config for type \"bind\": invalid mount path: 'rel'",
        ),
        ("run --cpus 900 busybox true", 125, "range of CPUs is from 0.01 to "),
        ("run --cap-add BOGUS busybox true", 125, 'invalid CapAdd: unknown capability: "CAP_BOGUS"'),
        ("run --cap-drop BOGUS busybox true", 125, 'invalid CapDrop: unknown capability: "CAP_BOGUS"'),
        ("run --tmpfs /x:bogus busybox true", 125, 'invalid tmpfs option "bogus"'),
        ("ps --filter status=bogus", 1, f"invalid value for state (bogus): must be one of {STATES}"),
    ],
)
def test_what_cannot_be(daemon: LabDaemon, command: str, code: int, words: str) -> None:
    done = daemon.docker(*command.split())
    assert (done.code, words in done.errors) == (code, True), done.errors


def test_of_a_container(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--init", "--name", name, "busybox", "sleep", "1000").ok()
    done = daemon.docker("exec", "-w", "/nosuch", name, "true")
    assert done.code == 127, done.errors
    done = daemon.docker("rm", name)
    assert f'cannot remove container "{name}": container is running' in done.errors
    done = daemon.docker("update", "--restart", "bogus", name)
    assert f"invalid restart policy: unknown policy 'bogus'; {POLICIES}" in done.errors
    done = daemon.docker("network", "connect", "host", name)
    assert "container must be created in host network mode" in done.errors
    daemon.docker("pause", name).ok()
    done = daemon.docker("exec", name, "true")
    assert f"Container {name} is paused, unpause the container before exec" in done.errors
    daemon.docker("unpause", name).ok()
    daemon.docker("stop", "-t", "0", name).ok()
    assert "is not paused" in daemon.docker("unpause", name).errors
