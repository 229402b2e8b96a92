"""Read the resource usage of containers, once a second, for hundreds of them.

The files stay open and are read in place (pread(2)). That costs half a microsecond per file; opening costs
ten. A limit leaves descriptors for others. Formats: the kernel's
cgroup-v1/{cpuacct,memory,pids,blkio-controller} and cgroup-v2 documents; proc(5) for ``/proc/stat`` and
``/proc/<pid>/net/dev``.
"""

from __future__ import annotations

import os
import resource
import time
from functools import cache

from wherry.linux import cgroups
from wherry.model.stats import Cpu, Sample

_TICK = 10**9 // os.sysconf("SC_CLK_TCK")
_UNLIMITED = (1 << 64) - 1
_SIZE = 1 << 14
_NET = (0, 1, 2, 3, 8, 9, 10, 11)
"""Columns of ``/proc/net/dev`` in the order of ``NETWORK_FIELDS``."""

_V1 = (
    ("cpuacct", "cpuacct.usage"),
    ("cpuacct", "cpuacct.usage_percpu"),
    ("cpuacct", "cpuacct.stat"),
    ("cpu", "cpu.stat"),
    ("memory", "memory.usage_in_bytes"),
    ("memory", "memory.max_usage_in_bytes"),
    ("memory", "memory.failcnt"),
    ("memory", "memory.stat"),
    ("pids", "pids.current"),
    ("pids", "pids.max"),
    ("blkio", "blkio.throttle.io_service_bytes_recursive"),
    ("blkio", "blkio.throttle.io_serviced_recursive"),
)
_V2 = ("cpu.stat", "memory.current", "memory.max", "memory.stat", "pids.current", "pids.max", "io.stat")


@cache
def host_memory() -> int:
    """Bytes: the memory that a container without a limit may use."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def host_cpu() -> int:
    """Nanoseconds of all processors together since boot, busy or idle."""
    fd = os.open("/proc/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        line = os.read(fd, 512).partition(b"\n")[0]
    finally:
        os.close(fd)
    return sum(map(int, line.split()[1:8])) * _TICK


def _budget() -> int:
    """The number of descriptors to use for this: a quarter of the limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4


class _File:
    """A file that is read repeatedly; it stays open if the budget allows. A missing file counts as empty."""

    __slots__ = ("_fd", "_path")
    held = 0

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        if _File.held < _budget():
            try:
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return
            _File.held += 1

    def read(self) -> bytes:
        try:
            if self._fd >= 0:
                return os.pread(self._fd, _SIZE, 0)
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return os.read(fd, _SIZE)
        except OSError:
            return b""
        finally:
            os.close(fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            _File.held -= 1


class Sampler:
    """The files of one running container. Not safe for two threads at once."""

    def __init__(self, container_id: str, path: str, pid: int, *, networks: bool) -> None:
        """:param pid: of its first process. :param networks: it has interfaces other than the host's."""
        self.id, self.pid = container_id, pid
        self._version = cgroups.layout().version
        self._files = [_File(p) for p in _paths(path, self._version)]
        self._net = _File(f"/proc/{pid}/net/dev") if networks else None
        self._last: Sample | None = None
        self._parsed: dict[str, tuple[bytes, object]] = {}

    def sample(self, name: str, host: int, online: int) -> Sample | None:
        """A reading, or ``None`` if the container is gone.
        ``host`` is :func:`host_cpu`, read once for all."""
        raw = [file.read() for file in self._files]
        if not raw[0]:
            return None
        last = self._last
        found = (self._v2 if self._version == 2 else self._v1)(name, raw, host, online, last)
        self._last = found
        return found

    @property
    def last(self) -> Sample | None:
        return self._last

    def _v1(self, name: str, raw: list[bytes], host: int, online: int, last: Sample | None) -> Sample:
        total, percpu, stat, throttle, used, most, failures, detail, pids, pids_max, io, operations = raw
        times = stat.split()
        cpu = Cpu(
            int(total),
            tuple(map(int, percpu.split())),
            int(times[1]) * _TICK if len(times) > 1 else 0,
            int(times[3]) * _TICK if len(times) > 3 else 0,
            _throttled(throttle, b"throttled_time", 1),
            host,
            online,
        )
        return Sample(
            self.id,
            name,
            time.time_ns(),
            cpu,
            _number(used),
            _number(most),
            _number(failures),
            _limit(_value(detail, b"hierarchical_memory_limit")) if used else None,
            detail,
            _number(pids),
            _pids_limit(pids_max),
            self._devices("io", io),
            self._devices("operations", operations),
            self._networks(),
            last.read if last is not None else 0,
            last.cpu if last is not None else Cpu(),
        )

    def _v2(self, name: str, raw: list[bytes], host: int, online: int, last: Sample | None) -> Sample:
        stat, used, most, detail, pids, pids_max, io = raw
        cpu = Cpu(
            _value(stat, b"usage_usec") * 1000,
            (),
            _value(stat, b"user_usec") * 1000,
            _value(stat, b"system_usec") * 1000,
            _throttled(stat, b"throttled_usec", 1000),
            host,
            online,
        )
        return Sample(
            self.id,
            name,
            time.time_ns(),
            cpu,
            _number(used),
            None,
            None,
            _limit(_number(most)) if used else None,
            detail,
            _number(pids),
            _pids_limit(pids_max),
            self._devices("io", io),
            None,
            self._networks(),
            last.read if last is not None else 0,
            last.cpu if last is not None else Cpu(),
        )

    def _devices(self, kind: str, raw: bytes) -> tuple[tuple[int, int, str, int], ...]:
        """Parsed again only if it has changed, which is rare."""
        held = self._parsed.get(kind)
        if held is not None and held[0] == raw:
            return held[1]  # type: ignore[return-value]
        parsed = parse_io_stat(raw) if self._version == 2 else parse_blkio(raw)
        self._parsed[kind] = (raw, parsed)
        return parsed

    def _networks(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        if self._net is None:
            return ()
        raw = self._net.read()
        held = self._parsed.get("net")
        if held is not None and held[0] == raw:
            return held[1]  # type: ignore[return-value]
        parsed = parse_net_dev(raw)
        self._parsed["net"] = (raw, parsed)
        return parsed

    def close(self) -> None:
        for file in (*self._files, *([self._net] if self._net is not None else [])):
            file.close()


def _paths(path: str, version: int) -> list[str]:
    where = cgroups.layout()
    relative = path.strip("/")
    if version == 2:
        return [f"{where.unified}/{relative}/{name}" for name in _V2]
    return [
        f"{where.hierarchies[controller]}/{relative}/{name}" if controller in where.hierarchies else ""
        for controller, name in _V1
    ]


def _number(raw: bytes) -> int | None:
    """``None`` for an empty file, and for ``max``."""
    text = raw.strip()
    return int(text) if text.isdigit() else None


def _value(raw: bytes, key: bytes) -> int:
    """The number after ``key`` in a file of ``key value`` lines; 0 if the key is missing."""
    start = 0 if raw.startswith(key + b" ") else raw.find(b"\n" + key + b" ")
    if start < 0:
        return 0
    start = raw.index(b" ", start) + 1
    end = raw.find(b"\n", start)
    return int(raw[start : end if end >= 0 else None])


def _throttled(raw: bytes, time_key: bytes, scale: int) -> tuple[int, int, int]:
    if b"nr_periods 0\n" in raw or not raw:
        return (0, 0, 0)
    return _value(raw, b"nr_periods"), _value(raw, b"nr_throttled"), _value(raw, time_key) * scale


def _limit(value: int | None) -> int:
    """A limit above the machine's memory counts as no limit."""
    return min(value, host_memory()) if value else host_memory()


def _pids_limit(raw: bytes) -> int | None:
    return (_number(raw) or _UNLIMITED) if raw else None


def parse_blkio(raw: bytes) -> tuple[tuple[int, int, str, int], ...]:
    """Lines ``8:0 Read 4096``; the total over all devices, which has no device, is left out."""
    found = []
    for line in raw.decode().splitlines():
        words = line.split()
        if len(words) == 3:
            major, _, minor = words[0].partition(":")
            found.append((int(major), int(minor), words[1], int(words[2])))
    return tuple(found)


def parse_io_stat(raw: bytes) -> tuple[tuple[int, int, str, int], ...]:
    """Lines ``8:0 rbytes=4096 wbytes=0 …`` as bytes read and written."""
    found = []
    for line in raw.decode().splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        counts = dict(pair.partition("=")[::2] for pair in pairs)
        for key, operation in (("rbytes", "read"), ("wbytes", "write")):
            if key in counts:
                found.append((int(major), int(minor), operation, int(counts[key])))
    return tuple(found)


def parse_net_dev(raw: bytes) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Every interface except the loopback, sorted by name."""
    found = []
    for line in raw.decode(errors="replace").splitlines()[2:]:
        name, _, rest = line.partition(":")
        numbers = rest.split()
        if name.strip() != "lo" and len(numbers) >= 12:
            found.append((name.strip(), tuple(int(numbers[i]) for i in _NET)))
    return tuple(sorted(found))
