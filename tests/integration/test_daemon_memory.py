"""What many clients can make the daemon hold at once, and that it is given back."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from daemonlab import LabDaemon, new_base, wait_until

pytestmark = pytest.mark.kernel

CLIENTS = 60
BODY = 8 << 20
MORE = 130
"""MiB: the budget for large bodies, and what each client has in buffers."""


@pytest.fixture(scope="module")
def lab() -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base())
    try:
        yield daemon.start()
    finally:
        daemon.destroy()


def held(daemon: LabDaemon) -> int:
    """MiB."""
    lines = Path(f"/proc/{daemon.pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("Pss:"))


def unfinished(daemon: LabDaemon, stack: ExitStack, head: str) -> None:
    """A request whose body lacks its last bytes; what is not taken stays unsent."""
    client = stack.enter_context(socket.socket(socket.AF_UNIX))
    client.connect(str(daemon.socket))
    client.sendall(f"{head}\r\nHost: x\r\nContent-Length: {BODY}\r\n\r\n".encode())
    client.settimeout(0.02)
    left = BODY - 100
    try:
        while left > 0:
            left -= client.send(b" " * min(left, 1 << 18))
    except TimeoutError:
        return


@pytest.mark.parametrize(
    "head",
    [
        "POST /containers/create HTTP/1.1\r\nContent-Type: application/json",
        "POST /images/load HTTP/1.1\r\nContent-Type: application/x-tar",
        "POST /build HTTP/1.1\r\nContent-Type: application/x-tar",
    ],
    ids=["json", "load", "build"],
)
def test_unfinished_bodies_have_a_bound_together(lab: LabDaemon, head: str) -> None:
    before = held(lab)
    for _ in range(2):
        with ExitStack() as stack:
            for _ in range(CLIENTS):
                unfinished(lab, stack, head)
            assert held(lab) - before < MORE
            assert lab.api("GET", "/_ping").status == 200
        wait_until(lambda: held(lab) - before < 25)


def test_a_large_body_still_comes(lab: LabDaemon) -> None:
    body = b'{"Image": "nothing", "Labels": {"a": "' + b"x" * (7 << 20) + b'"}}'
    assert (
        lab.api("POST", "/containers/create", body, headers={"Content-Type": "application/json"}).status
        == 404
    )
    assert lab.api("POST", "/containers/create", b" " * (BODY + 1)).status == 400
