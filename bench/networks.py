"""Rows about networks: attaching to one, names, throughput, ports beside many others.

Programs of the host (iperf3, python3) run inside containers, from the host's own directories mounted there.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator

from engines import Engine, Lab

SLEEP = ("busybox", "sleep", "100000")
_NETWORK = "bench-net"
_HOST_PROGRAMS = ("-v", "/usr:/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro")
_BYTES = "4G"
_OTHERS = 200
_QUERIES = """
import socket, statistics, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect(("127.0.0.11", 53))
ask = b"\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\x0bbench-other\\0\\0\\1\\0\\1"
times = []
for _ in range(2000):
    began = time.perf_counter()
    sock.send(ask)
    assert sock.recv(512)[3] & 15 == 0
    times.append(time.perf_counter() - began)
print(statistics.median(times) * 1000)
"""


@contextlib.contextmanager
def _network(engine: Engine) -> Iterator[None]:
    engine.ask("network", "create", _NETWORK)
    try:
        yield
    finally:
        engine.remove_containers()
        engine.ask("network", "rm", _NETWORK)


@contextlib.contextmanager
def run_on_one(lab: Lab, side: str) -> Iterator[Callable[[], float]]:
    engine = lab.engines[side]
    with _network(engine):
        yield lambda: engine.timed("run", "--rm", "--network", _NETWORK, "busybox", "true") * 1000


def _start(engine: Engine, *options: str) -> float:
    name = "bench-attach"
    engine.ask("create", "--name", name, *options, *SLEEP)
    try:
        return engine.timed("start", name) * 1000
    finally:
        engine.ask("rm", "-f", name)


@contextlib.contextmanager
def attach(lab: Lab, side: str) -> Iterator[Callable[[], float]]:
    """A start on a network, less the shortest of three without one."""
    engine = lab.engines[side]
    with _network(engine):
        yield lambda: max(
            0.0,
            min(_start(engine, "--network", _NETWORK) for _ in range(3))
            - min(_start(engine, "--network", "none") for _ in range(3)),
        )


@contextlib.contextmanager
def port_beside(lab: Lab, side: str) -> Iterator[Callable[[], float]]:
    """Every other port, so that each is a thing of its own for every engine."""
    engine = lab.engines[side]
    ports = [word for n in range(_OTHERS) for word in ("-p", f"{30000 + 2 * n}:{1000 + n}")]
    engine.ask("run", "-d", "--name", "bench-many", *ports, *SLEEP, timeout=180)
    try:
        yield lambda: _start(engine, "-p", "20000:80")
    finally:
        engine.ask("rm", "-f", "bench-many", timeout=180)


@contextlib.contextmanager
def _iperf(engine: Engine) -> Iterator[str]:
    """An iperf3 server in a container, published; yields its address."""
    with _network(engine):
        server = ("run", "-d", "--name", "bench-server", "--network", _NETWORK, "-p", "25201:5201")
        engine.ask(*server, *_HOST_PROGRAMS, "busybox", "/usr/bin/iperf3", "-s")
        client = ("run", "-d", "--name", "bench-client", "--network", _NETWORK, *_HOST_PROGRAMS)
        engine.ask(*client, *SLEEP)
        form = f'{{{{(index .NetworkSettings.Networks "{_NETWORK}").IPAddress}}}}'
        yield engine.ask("inspect", "-f", form, "bench-server").strip()


def _transfer(engine: Engine, address: str, port: int) -> float:
    """Milliseconds that the transfer took."""
    command = ("/usr/bin/iperf3", "-c", address, "-p", str(port), "-n", _BYTES, "-J")
    answer = json.loads(engine.ask("exec", "bench-client", *command))
    return float(answer["end"]["sum_received"]["seconds"]) * 1000


@contextlib.contextmanager
def between(lab: Lab, side: str) -> Iterator[Callable[[], float]]:
    engine = lab.engines[side]
    with _iperf(engine) as address:
        yield lambda: _transfer(engine, address, 5201)


@contextlib.contextmanager
def through_port(lab: Lab, side: str) -> Iterator[Callable[[], float]]:
    """By an address of the host: the network's gateway."""
    engine = lab.engines[side]
    with _iperf(engine):
        gateway = engine.ask(
            "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", _NETWORK
        ).strip()
        yield lambda: _transfer(engine, gateway, 25201)


@contextlib.contextmanager
def name_lookup(lab: Lab, side: str) -> Iterator[Callable[[], float]]:
    engine = lab.engines[side]
    with _network(engine):
        engine.ask("run", "-d", "--name", "bench-other", "--network", _NETWORK, *SLEEP)
        engine.ask("run", "-d", "--name", "bench-asker", "--network", _NETWORK, *_HOST_PROGRAMS, *SLEEP)
        yield lambda: float(engine.ask("exec", "bench-asker", "/usr/bin/python3", "-c", _QUERIES))
