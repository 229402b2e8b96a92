"""A gigabyte printed by a container, with and without ``logs -f`` attached, in turn.

    python bench/followed.py [--megabytes 1024] [--rounds 3]

Lines of 100 bytes. The follower takes the bytes of the API and counts those of the container: complete means
that every byte came. Its time is until its stream ends; the other's until the container has ended. In
namespaces of its own, as ``bench/crowd.py``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from contextlib import closing

import asking
import crowd

LINE = b"x" * 99 + b"\n"


def count(daemon: crowd.Daemon, container: str) -> int:
    """Bytes of the container's that a follower is sent, told by their number of ``x``, which no frame's head
    has here: a client in Python that looks at every frame would take longer than the daemon."""
    with closing(asking.Connection(daemon.socket)) as connection:
        connection.request("GET", f"/containers/{container}/logs?follow=1&stdout=1&stderr=1")
        answer = connection.getresponse()
        found = 0
        while data := answer.read1(1 << 20):
            found += data.count(b"x")
    return found * len(LINE) // (len(LINE) - 1)


def once(daemon: crowd.Daemon, size: int, *, followed: bool) -> tuple[float, int]:
    """Seconds, and the bytes that the follower was sent."""
    daemon.count += 1
    command = f"yes {LINE[:-1].decode()} | head -c {size}"
    body = {"Image": "busybox", "Cmd": ["sh", "-c", command], "HostConfig": {"NetworkMode": "none"}}
    path = f"/containers/create?name=flood-{daemon.count}"
    container = str(daemon.ask("POST", path, body, ok=(201,))["Id"])
    try:
        began = time.monotonic()
        daemon.run(container)
        sent = count(daemon, container) if followed else 0
        daemon.ask("POST", f"/containers/{container}/wait", ok=(200,))
        return time.monotonic() - began, sent
    finally:
        daemon.ask("DELETE", f"/containers/{container}?force=1", ok=(204,))


def measure(megabytes: int, rounds: int) -> None:
    size = (megabytes << 20) // len(LINE) * len(LINE)
    print(f"load {os.getloadavg()[0]:.1f}, {megabytes} MiB in lines of {len(LINE)} bytes")
    alone: list[float] = []
    beside: list[float] = []
    with crowd.daemon("none") as daemon:
        for number in range(rounds):
            for followed in (False, True) if number % 2 == 0 else (True, False):
                seconds, sent = once(daemon, size, followed=followed)
                (beside if followed else alone).append(seconds)
                complete = "" if not followed else f", {'complete' if sent == size else f'{sent} of {size}'}"
                print(f"{'followed' if followed else 'alone'}: {seconds:.1f} s{complete}", flush=True)
    one, other = statistics.median(alone), statistics.median(beside)
    print(f"medians: alone {one:.1f} s, followed {other:.1f} s: {other / one:.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    return crowd.inside(lambda: measure(options.megabytes, options.rounds))


if __name__ == "__main__":
    sys.exit(main())
