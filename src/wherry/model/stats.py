"""The resource usage of a container: one reading of its cgroups and its network namespace."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cpu:
    """Times in nanoseconds. ``percpu`` is empty on version 2; ``throttled`` is (periods, throttled ones, ns).

    ``host`` is the time that all processors together spent, ``online`` their number.
    """

    total: int = 0
    percpu: tuple[int, ...] = ()
    user: int = 0
    system: int = 0
    throttled: tuple[int, int, int] = (0, 0, 0)
    host: int = 0
    online: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of one container; sizes in bytes, ``None`` if this cgroup version does not have the value.

    ``memory_detail`` is ``memory.stat`` as the kernel wrote it, ``io_bytes`` and ``io_operations`` have
    (major, minor, operation, count), ``networks`` (name, then the eight counters of ``NETWORK_FIELDS``).
    ``before`` and ``read_before`` belong to the previous reading, for rates.
    """

    id: str
    name: str
    read: int
    cpu: Cpu
    memory: int | None = None
    memory_max: int | None = None
    memory_failures: int | None = None
    memory_limit: int | None = None
    memory_detail: bytes = b""
    pids: int | None = None
    pids_limit: int | None = None
    io_bytes: tuple[tuple[int, int, str, int], ...] | None = None
    io_operations: tuple[tuple[int, int, str, int], ...] | None = None
    networks: tuple[tuple[str, tuple[int, ...]], ...] = ()
    read_before: int = 0
    before: Cpu = Cpu()


NETWORK_FIELDS = (
    "rx_bytes",
    "rx_packets",
    "rx_errors",
    "rx_dropped",
    "tx_bytes",
    "tx_packets",
    "tx_errors",
    "tx_dropped",
)
