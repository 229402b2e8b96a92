"""Rows of ``stats`` and ``top``: a container's usage, with the arithmetic of Docker's client."""

from __future__ import annotations

from wherry.cli.render import units
from wherry.cli.render.rows import fields
from wherry.cli.render.table import Row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Object = dict[str, Any]

BLOCKS = "▁▂▃▄▅▆▇█"


class ContainerUsage:
    """What one reading of ``/containers/{id}/stats`` says. ``running`` is False for one that says nothing."""

    __slots__ = (
        "block_read",
        "block_write",
        "context",
        "cpu",
        "id",
        "limit",
        "memory",
        "name",
        "pids",
        "received",
        "running",
        "sent",
    )

    def __init__(self, reading: Object, context: str = "") -> None:
        self.context = context
        self.id, self.name = str(reading.get("id", "")), str(reading.get("name", "")).removeprefix("/")
        memory = reading.get("memory_stats") or {}
        self.running = bool(memory.get("usage"))
        self.cpu = cpu_percent(reading)
        self.memory = float(_without_cache(memory))
        self.limit = float(memory.get("limit") or 0)
        self.pids = int((reading.get("pids_stats") or {}).get("current") or 0)
        networks = (reading.get("networks") or {}).values()
        self.received = float(sum(n.get("rx_bytes", 0) for n in networks))
        self.sent = float(sum(n.get("tx_bytes", 0) for n in networks))
        self.block_read, self.block_write = _block_io(reading.get("blkio_stats") or {})

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from others also where several daemons are watched, or one under two names."""
        return self.context, self.id

    @property
    def memory_percent(self) -> float:
        return self.memory / self.limit * 100 if self.limit else 0.0


def cpu_percent(reading: Object) -> float:
    """Of one processor: 200 is two of them in full."""
    now, before = reading.get("cpu_stats") or {}, reading.get("precpu_stats") or {}
    own = _total(now) - _total(before)
    host = int(now.get("system_cpu_usage") or 0) - int(before.get("system_cpu_usage") or 0)
    processors = now.get("online_cpus") or len((now.get("cpu_usage") or {}).get("percpu_usage") or ()) or 1
    if own <= 0 or host <= 0 or not before.get("system_cpu_usage"):
        return 0.0
    return float(own / host * processors * 100)


def _total(cpu: Object) -> int:
    return int((cpu.get("cpu_usage") or {}).get("total_usage") or 0)


def _without_cache(memory: Object) -> int:
    """Page cache that is not in use is no usage (``total_inactive_file`` on version 1)."""
    usage, detail = int(memory.get("usage") or 0), memory.get("stats") or {}
    for name in ("total_inactive_file", "inactive_file"):
        if name in detail and int(detail[name]) < usage:
            return usage - int(detail[name])
    return usage


def _block_io(blkio: Object) -> tuple[float, float]:
    read = written = 0
    for entry in blkio.get("io_service_bytes_recursive") or []:
        operation = str(entry.get("op", ""))[:1].lower()
        if operation == "r":
            read += int(entry.get("value", 0))
        elif operation == "w":
            written += int(entry.get("value", 0))
    return float(read), float(written)


def sparkline(values: Sequence[float], width: int, least: float) -> str:
    """Bars of ``values``, the newest at the right; the highest is full, unless it is below ``least``."""
    top = max([*values, least])
    bars = "".join(BLOCKS[min(int(value / top * len(BLOCKS)), len(BLOCKS) - 1)] for value in values[-width:])
    return bars.rjust(width)


class UsageLine(Row):
    """One container of ``stats``."""

    TYPE = "formatter.statsContext"
    FIELDS = fields("BlockIO CPUPerc Container ID MemPerc MemUsage Name NetIO PIDs")
    HEADERS = {
        "Container": "CONTAINER",
        "ID": "CONTAINER ID",
        "Name": "NAME",
        "CPUPerc": "CPU %",
        "MemUsage": "MEM USAGE / LIMIT",
        "MemPerc": "MEM %",
        "NetIO": "NET I/O",
        "BlockIO": "BLOCK I/O",
        "PIDs": "PIDS",
    }
    TABLE = (
        "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"
    )

    def __init__(
        self, usage: ContainerUsage, *, asked: str = "", truncate: bool = True, several: bool = False
    ) -> None:
        self.u, self.asked, self.truncate = usage, asked, truncate
        self.context, self.several = usage.context, several

    def get_container(self) -> str:
        return self.asked or self.get_id()

    def get_id(self) -> str:
        return units.short_id(self.u.id) if self.truncate else self.u.id

    def get_name(self) -> str:
        return self.u.name or "--"

    def get_cpuperc(self) -> str:
        return f"{self.u.cpu:.2f}%"

    def get_memusage(self) -> str:
        return f"{units.binary_size(self.u.memory)} / {units.binary_size(self.u.limit)}"

    def get_memperc(self) -> str:
        return f"{self.u.memory_percent:.2f}%"

    def get_netio(self) -> str:
        return f"{units.size(self.u.received)} / {units.size(self.u.sent)}"

    def get_blockio(self) -> str:
        return f"{units.size(self.u.block_read)} / {units.size(self.u.block_write)}"

    def get_pids(self) -> str:
        return str(self.u.pids)
