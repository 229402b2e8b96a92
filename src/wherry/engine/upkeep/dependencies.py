"""The order in which containers start with the daemon, and what each of them waits for.

A container starts after those that it links or whose namespaces it joins. The labels of a Compose container
name the services that it depends on, and the conditions. They are also applied when the daemon starts,
without another ``up``:

    com.docker.compose.project     shop
    com.docker.compose.service     web
    com.docker.compose.depends_on  db:service_healthy:true,migrate:service_completed_successfully:false

This module only computes; ``reconcile`` does the waiting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wherry.model.container import ContainerState
from wherry.state.containers import ContainerRow

PROJECT, SERVICE = "com.docker.compose.project", "com.docker.compose.service"
DEPENDS_ON = "com.docker.compose.depends_on"
STARTED, HEALTHY, COMPLETED = "service_started", "service_healthy", "service_completed_successfully"
_CONDITIONS = frozenset({STARTED, HEALTHY, COMPLETED})


@dataclass(frozen=True)
class Need:
    """What a container waits for. ``condition`` is one of Compose's."""

    container_id: str
    condition: str


def needs(rows: Sequence[ContainerRow]) -> dict[str, list[Need]]:
    """What each container of a Compose project waits for, by id; containers that wait for nothing are left
    out.

    A dependency on a service is one on all its containers. A dependency that would close a cycle is ignored.
    """
    services: dict[tuple[str, str], list[ContainerRow]] = {}
    for row in rows:
        labels = row.record.config.labels or {}
        if PROJECT in labels and SERVICE in labels:
            services.setdefault((labels[PROJECT], labels[SERVICE]), []).append(row)
    found: dict[str, list[Need]] = {}
    for row in rows:
        labels = row.record.config.labels or {}
        for service, condition in _depends_on(labels.get(DEPENDS_ON, "")):
            for other in services.get((labels.get(PROJECT, ""), service), ()):
                if other.id != row.id and not _reaches(found, other.id, row.id):
                    found.setdefault(row.id, []).append(Need(other.id, condition))
    return found


def _depends_on(label: str) -> list[tuple[str, str]]:
    """The service and the condition of each entry; invalid entries are left out."""
    parts = [entry.split(":") for entry in label.split(",")]
    return [(part[0], part[1]) for part in parts if len(part) >= 2 and part[1] in _CONDITIONS]


def _reaches(found: dict[str, list[Need]], start: str, goal: str) -> bool:
    """Whether ``start`` already waits for ``goal``, directly or indirectly."""
    seen, left = {start}, [start]
    while left:
        for need in found.get(left.pop(), ()):
            if need.container_id == goal:
                return True
            if need.container_id not in seen:
                seen.add(need.container_id)
                left.append(need.container_id)
    return False


def order(rows: Sequence[ContainerRow], waits: dict[str, list[Need]]) -> list[ContainerRow]:
    """Sort containers by age, oldest first, but each one after the containers that it links, joins or waits
    for."""
    by_key = {key: row for row in rows for key in (row.id, row.name)}
    ordered: dict[str, ContainerRow] = {}

    def visit(row: ContainerRow, above: frozenset[str]) -> None:
        host = row.record.host_config
        modes = (host.network_mode, host.ipc_mode, host.pid_mode)
        joined = [mode.partition(":")[2] for mode in modes if mode.startswith("container:")]
        waited = [need.container_id for need in waits.get(row.id, ())]
        for key in (*row.record.links.values(), *joined, *waited):
            other = by_key.get(key)
            if other is not None and other.id not in above:  # a cycle has no order
                visit(other, above | {row.id})
        ordered.setdefault(row.id, row)

    for row in sorted(rows, key=lambda r: r.record.created):
        visit(row, frozenset((row.id,)))
    return list(ordered.values())


def is_over(condition: str, state: ContainerState, *, runs: bool) -> bool:
    """Whether to stop waiting for a container whose start has already been tried: the condition is true, or
    it cannot become true any more.

    :param runs: whether the container has a running process.
    """
    if state.status == "restarting":
        return condition == STARTED
    if condition == COMPLETED:
        return not runs
    if condition == HEALTHY and runs:
        return state.health is None or state.health.status == "healthy"
    return True
