"""The room of processes, put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wherry.engine.containers.wiring import ContainerRoom
from wherry.engine.ground import Ground, Stores
from wherry.engine.processes.attach import AttachService
from wherry.engine.processes.execcontrol import ExecControl
from wherry.engine.processes.execs import ExecService
from wherry.engine.processes.health import HealthMonitor
from wherry.engine.processes.probes import Prober
from wherry.engine.processes.stats import StatsService
from wherry.engine.processes.top import TopService
from wherry.linux.execgroups import ExecGroups
from wherry.model.stats import Sample


@dataclass(frozen=True)
class StatsEncoding:
    """Encodes a reading for clients, once for all listeners. Only the faces know the format."""

    running: Callable[[Sample], bytes]
    stopped: Callable[[str, str], bytes]


@dataclass(frozen=True)
class ProcessRoom:
    attach: AttachService
    execs: ExecService
    exec_control: ExecControl
    top: TopService
    stats: StatsService
    health: HealthMonitor
    prober: Prober

    async def close(self) -> None:
        await self.health.close()
        await self.stats.close()
        self.execs.close()


def wire(ground: Ground, stores: Stores, containers: ContainerRoom, encoding: StatsEncoding) -> ProcessRoom:
    groups = ExecGroups()
    execs = ExecService(ground, runtimes=stores.runtimes, groups=groups)
    prober = Prober(settings=ground.settings, runtimes=stores.runtimes, groups=groups)
    health = HealthMonitor(
        containers=ground.containers,
        live=ground.live,
        events=ground.events,
        runner=prober,
        act=containers.control.end_unhealthy,
    )
    containers.observers.running += [
        lambda container_id, adopted: health.running(container_id, adopted=adopted),
        lambda container_id, adopted: execs.adopt(container_id) if adopted else None,
    ]
    return ProcessRoom(
        attach=AttachService(ground),
        execs=execs,
        exec_control=ExecControl(
            settings=ground.settings, containers=ground.containers, execs=execs, groups=groups
        ),
        top=TopService(ground),
        stats=StatsService(ground, encode=encoding.running, encode_stopped=encoding.stopped),
        health=health,
        prober=prober,
    )
