"""What is read when somebody asks: states of containers, what they use, and what waits for what."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from wherry import __version__, threads
from wherry.engine.engine import Engine
from wherry.engine.processes.stats import Reading
from wherry.model.stats import NETWORK_FIELDS, Sample
from wherry.state.containers import ContainerRow

_STATES = {"running": "running", "restarting": "running", "paused": "paused"}
"""dockerd knows three: everything else is stopped."""
_HEALTHS = ("starting", "healthy", "unhealthy")
_SECOND = 1e9


@dataclass(frozen=True)
class ShownContainers:
    """Which containers have metrics of their own, and which of their labels these carry.

    :ivar containers: ``all``, ``none``, or a label (``KEY`` or ``KEY=VALUE``) that a container must have.
    """

    containers: str = "all"
    labels: tuple[str, ...] = ()

    def wants(self, row: ContainerRow) -> bool:
        if self.containers in ("all", "none"):
            return self.containers == "all"
        key, equals, value = self.containers.partition("=")
        found = (row.record.config.labels or {}).get(key)
        return found is not None and (not equals or found == value)


@dataclass(frozen=True)
class Found:
    """What one scrape has to tell, read on the loop and on threads before it is put into words."""

    rows: Sequence[ContainerRow]
    readings: Sequence[Reading]
    images: int
    volumes: int
    networks: Sequence[str]


async def read(engine: Engine, shown: ShownContainers) -> Found:
    """Read everything. :raises Unavailable: the database cannot be read."""
    rows = engine.ground.containers.all()
    readings = await engine.processes.stats.read([row for row in rows if shown.wants(row)])
    images, volumes = await threads.short(
        lambda: (len(engine.stores.images.rows.names()), len(engine.stores.volumes.list()))
    )
    networks = [network.driver for network in engine.networks.select({})]
    return Found(rows, readings, images, volumes, networks)


class HostCollector(Collector):
    """:class:`Found` as metrics, as long as there is one to tell of."""

    def __init__(self, engine: Engine, shown: ShownContainers) -> None:
        self._engine, self._shown = engine, shown
        self._found: Found | None = None

    @contextmanager
    def telling(self, found: Found) -> Iterator[None]:
        """What is collected during the ``with`` is ``found``."""
        self._found = found
        try:
            yield
        finally:
            self._found = None

    def collect(self) -> Iterator[Metric]:
        if self._found is None:
            return
        yield from _engine(self._engine)
        yield from _states(self._found)
        yield from _work(self._engine)
        yield from _containers(self._found, self._shown)


def _engine(engine: Engine) -> Iterator[Metric]:
    about = InfoMetricFamily("engine_daemon_engine", "The information related to the engine and the OS")
    about.add_metric([], _about(engine))
    yield about
    yield _gauge("engine_daemon_engine_cpus_cpus", "The number of CPUs of the host", os.cpu_count() or 1)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield _gauge("engine_daemon_engine_memory_bytes", "The number of bytes of memory of the host", memory)
    yield _gauge(
        "engine_daemon_events_subscribers_total",
        "The number of current subscribers to events",
        engine.events.listeners,
    )


def _about(engine: Engine) -> dict[str, str]:
    return {
        "version": __version__,
        "commit": "",
        "architecture": platform.machine(),
        "graphdriver": engine.upkeep.system.driver,
        "kernel": platform.release(),
        "os": "linux",
        "os_type": "linux",
        "daemon_id": engine.settings.engine_id,
    }


def _states(found: Found) -> Iterator[Metric]:
    counts = dict.fromkeys(("running", "paused", "stopped"), 0)
    healths = dict.fromkeys(_HEALTHS, 0)
    for row in found.rows:
        counts[_STATES.get(row.state.status, "stopped")] += 1
        if row.state.health is not None and row.state.health.status in healths:
            healths[row.state.health.status] += 1
    states = GaugeMetricFamily(
        "engine_daemon_container_states_containers",
        "The count of containers in various states",
        labels=["state"],
    )
    for state, count in counts.items():
        states.add_metric([state], count)
    yield states
    health = GaugeMetricFamily(
        "wherry_containers_health", "Containers with a health check", labels=["health"]
    )
    for state, count in healths.items():
        health.add_metric([state], count)
    yield health
    yield _gauge("wherry_images", "Names of images", found.images)
    yield _gauge("wherry_volumes", "Volumes", found.volumes)
    networks = GaugeMetricFamily("wherry_networks", "Networks", labels=["driver"])
    for driver in sorted(set(found.networks)):
        networks.add_metric([driver], found.networks.count(driver))
    yield networks


def _work(engine: Engine) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(
        "wherry_threads_waiting", "Jobs that wait for a thread of their class", labels=["class"]
    )
    busy = GaugeMetricFamily("wherry_threads_busy", "Threads at work", labels=["class"])
    limit = GaugeMetricFamily("wherry_threads_limit", "Threads that a class may have", labels=["class"])
    for pool in threads.ALL:
        at_work, in_line = pool.load()
        waiting.add_metric([pool.name], in_line)
        busy.add_metric([pool.name], at_work)
        limit.add_metric([pool.name], pool.limit)
    yield from (waiting, busy, limit)
    yield _gauge("wherry_pulls_in_progress", "Pulls under way", engine.images.pulls.under_way)
    builds = engine.opened_builds
    yield _gauge("wherry_builds_in_progress", "Builds under way", builds.under_way if builds else 0)
    triggered = CounterMetricFamily("builder_builds_triggered", "Number of triggered image builds")
    triggered.add_metric([], builds.begun if builds else 0)
    failed = CounterMetricFamily("builder_builds_failed", "Number of failed image builds", labels=["reason"])
    for reason, status in (("build_failed", "Error"), ("build_canceled", "Canceled")):
        failed.add_metric([reason], builds.ended[status] if builds else 0)
    yield from (triggered, failed)


# ---- containers ------------------------------------------------------------------------------------------

_NETWORK = {
    "rx_bytes": ("receive_bytes", "Bytes received"),
    "rx_packets": ("receive_packets", "Packets received"),
    "rx_errors": ("receive_errors", "Errors while receiving"),
    "rx_dropped": ("receive_packets_dropped", "Packets dropped while receiving"),
    "tx_bytes": ("transmit_bytes", "Bytes sent"),
    "tx_packets": ("transmit_packets", "Packets sent"),
    "tx_errors": ("transmit_errors", "Errors while sending"),
    "tx_dropped": ("transmit_packets_dropped", "Packets dropped while sending"),
}


def _containers(found: Found, shown: ShownContainers) -> Iterator[Metric]:
    families = _Families(shown.labels)
    for reading in found.readings:
        families.add(reading.row, reading.sample)
    yield from families.all()


class _Families:
    """The metrics of containers, each with the same labels in front."""

    def __init__(self, shown: Sequence[str]) -> None:
        self._shown = shown
        self._labels = ["id", "name", "image", *label_names(shown)]
        self._made: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}

    def all(self) -> Iterator[Metric]:
        yield from self._made.values()

    def add(self, row: ContainerRow, sample: Sample | None) -> None:
        labels = row.record.config.labels or {}
        who = [row.id, row.name, row.record.config.image, *(labels.get(key, "") for key in self._shown)]
        self._count(
            "wherry_container_restarts", "Restarts by the restart policy", who, row.state.restart_count
        )
        if row.state.started_at:
            began = row.state.started_at / _SECOND
            self._gauge("container_start_time_seconds", "Last start, since the epoch", who, began)
        if row.state.health is not None:
            healthy = row.state.health.status == "healthy"
            self._gauge("wherry_container_healthy", "Whether the health check passes", who, healthy)
        if sample is not None:
            self._cpu(who, sample)
            self._memory(who, sample)
            self._devices(who, sample)

    def _cpu(self, who: list[str], sample: Sample) -> None:
        cpu = sample.cpu
        periods, throttled, time = cpu.throttled
        for name, words, value in (
            ("usage_seconds", "CPU time consumed", cpu.total / _SECOND),
            ("user_seconds", "User CPU time consumed", cpu.user / _SECOND),
            ("system_seconds", "System CPU time consumed", cpu.system / _SECOND),
            ("cfs_periods", "Elapsed enforcement periods", periods),
            ("cfs_throttled_periods", "Throttled periods", throttled),
            ("cfs_throttled_seconds", "Time the container was throttled", time / _SECOND),
        ):
            self._count(f"container_cpu_{name}", words, who, value)

    def _memory(self, who: list[str], sample: Sample) -> None:
        used = sample.memory
        if used is not None:
            self._gauge("container_memory_usage_bytes", "Memory used, page cache included", who, used)
            set_ = max(0, used - _inactive(sample.memory_detail))
            self._gauge("container_memory_working_set_bytes", "Memory that cannot be reclaimed", who, set_)
        if sample.memory_max is not None:
            self._gauge("container_memory_max_usage_bytes", "The most memory used", who, sample.memory_max)
        if sample.memory_failures is not None:
            words = "Times that the limit was reached"
            self._count("container_memory_failcnt", words, who, sample.memory_failures)
        limit = sample.memory_limit or 0
        self._gauge("container_spec_memory_limit_bytes", "Memory limit, 0 for none", who, limit)
        if sample.pids is not None:
            self._gauge("container_threads", "Threads and processes", who, sample.pids)

    def _devices(self, who: list[str], sample: Sample) -> None:
        for interface, values in sample.networks:
            for field, value in zip(NETWORK_FIELDS, values, strict=True):
                name, words = _NETWORK[field]
                self._count(f"container_network_{name}", words, [*who, interface], value, more="interface")
        for operation, name in (("read", "reads"), ("write", "writes")):
            for major, minor, kind, value in sample.io_bytes or ():
                if kind.lower() == operation:
                    device = f"{major}:{minor}"
                    words = f"Bytes of {name}"
                    self._count(f"container_fs_{name}_bytes", words, [*who, device], value, more="device")

    def _gauge(self, name: str, words: str, who: list[str], value: float) -> None:
        if name not in self._made:
            self._made[name] = GaugeMetricFamily(name, words, labels=self._labels)
        self._made[name].add_metric(who, value)

    def _count(self, name: str, words: str, who: list[str], value: float, *, more: str = "") -> None:
        if name not in self._made:
            labels = [*self._labels, more] if more else self._labels
            self._made[name] = CounterMetricFamily(name, words, labels=labels)
        self._made[name].add_metric(who, value)


def label_names(keys: Sequence[str]) -> list[str]:
    """The names under which containers' labels are shown, as cAdvisor has them."""
    return ["container_label_" + re.sub(r"[^a-zA-Z0-9_]", "_", key) for key in keys]


def _inactive(detail: bytes) -> int:
    """``total_inactive_file`` of ``memory.stat`` (version 1), or ``inactive_file``; in bytes."""
    found = {}
    for line in detail.splitlines():
        name, _, value = line.partition(b" ")
        if name in (b"total_inactive_file", b"inactive_file"):
            found[name] = int(value)
    return found.get(b"total_inactive_file", found.get(b"inactive_file", 0))


def _gauge(name: str, words: str, value: float) -> Metric:
    made = GaugeMetricFamily(name, words)
    made.add_metric([], value)
    return made
