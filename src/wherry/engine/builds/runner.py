"""RUN: one command in a container that has no row, as a child of the daemon.

It needs no conmon: nobody attaches to it, and it does not outlive the build. Its bundle is a task like any
other below ``<run>/tasks``, with an id of the same form. So if the daemon is killed, its next start ends and
removes the task (see engine.upkeep.reconcile). Networks are pooled: consecutive steps of a build use the same
one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import secrets
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from wherry import threads
from wherry.engine.builds.mounts import MountedSources, MountMaker
from wherry.engine.builds.networks import BuildNamespace
from wherry.engine.builds.networks import NamespacePool as NamespacePool
from wherry.engine.builds.runfailed import RunFailed
from wherry.engine.builds.stubs import Stubs
from wherry.engine.containers.bundle import make_workdir
from wherry.engine.containers.devices import Devices
from wherry.engine.containers.etcfiles import hosts_file, resolv_conf
from wherry.engine.containers.joined import Joined
from wherry.engine.containers.sandboxes import Sandboxes
from wherry.engine.mounts import targets
from wherry.engine.settings import Settings
from wherry.errors import WherryError
from wherry.linux import cgroups, descriptors, files, mounts, users
from wherry.linux.process import Child
from wherry.model import oci
from wherry.model.container import Container, ContainerConfig, DeviceRequest, HostConfig
from wherry.model.digest import Digest
from wherry.model.mount import Mount
from wherry.network.room import NetworkRoom
from wherry.runtime.cdi import Injection
from wherry.runtime.security import parse_security_options
from wherry.runtime.spec import (
    Namespaces,
    OciMount,
    Process,
    SpecRequest,
    build,
)
from wherry.runtime.task import Runtime
from wherry.solver.graph import RunOp
from wherry.solver.solve import Log

_TAIL = 4096
"""The host name that builds have always had: programs write it into their results."""


@dataclass(frozen=True)
class BuildLimits:
    """A build's limits for each RUN, as in Docker's query parameters."""

    host: HostConfig = field(default_factory=HostConfig)
    hostname: str = ""


@dataclass
class StartedCommand:
    """A running command, and the undo of everything that was made for it."""

    id: str
    child: Child
    undo: ExitStack
    directory: Path


class Runner:
    def __init__(
        self,
        *,
        settings: Settings,
        runtimes: Mapping[str, Runtime],
        network: NetworkRoom,
        sandboxes: Sandboxes,
        devices: Devices,
    ) -> None:
        self._settings = settings
        self._runtime = runtimes[settings.default_runtime]
        self._network = network
        self._sandboxes = sandboxes
        self._devices = devices
        # The operator's system calls count for builds too. A step may still gain privileges, as in Docker.
        self._security = dataclasses.replace(settings.security, no_new_privileges=False)

    def networks(self) -> NamespacePool:
        """The network namespaces for one build."""
        settings = self._settings
        return NamespacePool(self._network, self._sandboxes, settings.run / "netns", settings.dns)

    def host_gateway(self) -> str:
        """An address of the host that commands on the builds' network can reach; ``""`` if there is none."""
        for network in self._network.networks.list():
            for subnet in network.subnets:
                if self._network.networks.publishes(network) and subnet.family == 4 and subnet.gateway:
                    return str(subnet.gateway)
        return ""

    async def run(
        self,
        op: RunOp,
        root: Mount,
        *,
        maker: MountMaker,
        platform: str,
        networks: NamespacePool,
        limits: BuildLimits,
        log: Log,
    ) -> None:
        """Run a command on the files that ``root`` mounts. If cancelled, the command is ended.

        :raises RunFailed: the command exited with a status other than 0. :raises InvalidArgument: it cannot
        be run.
        """
        starting = asyncio.ensure_future(
            threads.runtime(self._start, op, root, maker, platform, networks, limits)
        )
        try:
            started = await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait([starting])
            if starting.exception() is None:
                await threads.runtime(self._end, starting.result(), True)
            raise
        output = _Output(started.child, log)
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(started.child.output, output.read)
        loop.add_reader(started.child.pidfd, ended.set)
        killed = True
        try:
            await ended.wait()
            killed = False
        finally:
            loop.remove_reader(started.child.output)
            loop.remove_reader(started.child.pidfd)
            code = await asyncio.shield(threads.runtime(self._end, started, killed, output))
        if code:
            self._failed(op, code, output)

    @staticmethod
    def _failed(op: RunOp, code: int, output: _Output) -> None:
        command = " ".join(op.args)
        raise RunFailed(command, code, output.tail())

    # ---- on a thread ---------------------------------------------------------------------------------------

    def _start(
        self,
        op: RunOp,
        root: Mount,
        maker: MountMaker,
        platform: str,
        networks: NamespacePool,
        limits: BuildLimits,
    ) -> StartedCommand:
        descriptors.require("run a command")
        identifier = secrets.token_hex(32)
        directory = self._settings.task_directory(identifier)
        threading.Thread(target=cgroups.ease_attach, daemon=True).start()
        with ExitStack() as undo:
            undo.callback(files.remove_tree, directory)
            rootfs = directory / "rootfs"
            rootfs.mkdir(parents=True, mode=0o700)
            directory.chmod(0o700)
            self._settings.mark(directory)
            undo.callback(mounts.unmount, rootfs)
            mounts.mount(root, rootfs)
            place = networks.take(op.network)
            undo.callback(networks.give_back, op.network, place, clean=op.security == "sandbox")
            self._write_spec(op, identifier, directory, maker, platform, limits, place, undo)
            cgroup = self._cgroup(identifier, limits.host)
            undo.callback(_remove_cgroup, cgroup)
            undo.callback(self._runtime.delete, identifier)
            child = self._runtime.run_bundle(identifier, directory)
            return StartedCommand(identifier, child, undo.pop_all(), directory)

    def _write_spec(
        self,
        op: RunOp,
        identifier: str,
        directory: Path,
        maker: MountMaker,
        platform: str,
        limits: BuildLimits,
        place: BuildNamespace,
        undo: ExitStack,
    ) -> None:
        insecure = op.security == "insecure"
        host = replace(limits.host, privileged=insecure)
        name = limits.hostname or place.joined.hostname
        joined = dataclasses.replace(place.joined, hostname=name)
        record = _record(identifier, host, name)
        mounted = maker.make(op, directory, undo)
        taken = {m.destination for m in mounted.mounts}
        sources = [*_etc(record, joined, self._settings, directory, place, taken), *mounted.mounts]
        devices = self._inject(op)
        root_fd = os.open(directory / "rootfs", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        undo.callback(os.close, root_fd)
        targets.check_targets(root_fd, directory / "rootfs", [m.destination for m in sources])
        user = users.lookup(root_fd, op.user)
        make_workdir(root_fd, op.cwd, user, [m.destination for m in sources])
        stubs = Stubs(root_fd)
        undo.callback(stubs.remove)
        stubs.make([(d, True) for d in ("/proc", "/sys", "/dev")])
        stubs.make(
            (m.destination, mounted.is_directory(m)) for m in sources if not m.destination.startswith("/dev/")
        )
        request = SpecRequest(
            hostname=name,
            domainname="",
            rootfs=str(directory / "rootfs"),
            process=Process(args=op.args, env=_environment(op, user, mounted), cwd=op.cwd, user=user),
            host=host,
            namespaces=Namespaces(
                network=joined.network, uts="host" if op.network == "host" else "", cgroup=""
            ),
            cgroup_path=self._cgroup(identifier, host),
            security=parse_security_options(
                host.security_opt or (), privileged=insecure, defaults=self._security
            ),
            architecture=platform.split("/")[1] if "/" in platform else oci.host().architecture,
            mounts=sources + [OciMount(*m) for m in devices.mounts],
            devices=devices,
        )
        (directory / "config.json").write_bytes(build(request))

    def _inject(self, op: RunOp) -> Injection:
        names = [name.partition(",")[0].removeprefix("name=") for name in op.devices]
        return self._devices.resolve([DeviceRequest(driver="cdi", device_ids=names)] if names else [])

    def _cgroup(self, identifier: str, host: HostConfig) -> str:
        parent = host.cgroup_parent or self._settings.cgroup_parent
        return cgroups.child(parent, identifier)

    def _end(self, started: StartedCommand, killed: bool, output: _Output | None = None) -> int:
        """Undo everything; returns the exit code. Blocks."""
        if killed:
            try:
                self._runtime.delete(started.id)
            except WherryError:
                pass  # the rest of it is ended with its cgroup below
        if output is not None:
            output.read()
        code = started.child.close()
        started.undo.close()
        return 128 - code if code < 0 else code


def _remove_cgroup(path: str) -> None:
    try:
        cgroups.kill(path)
        cgroups.remove(path)
    except (OSError, TimeoutError):
        return  # a process that does not end still uses it; the next start tries again


def _record(identifier: str, host: HostConfig, hostname: str) -> Container:
    """The part of a container's record that the files in ``/etc`` need."""
    return Container(
        id=identifier,
        created=0,
        image_ref="",
        image_id=Digest(""),
        chain_id=None,
        platform="",
        path="",
        args=[],
        config=ContainerConfig(hostname=hostname),
        host_config=host,
        networks={},
        mounts=[],
        storage_driver="",
    )


def _etc(
    record: Container,
    joined: Joined,
    settings: Settings,
    directory: Path,
    place: BuildNamespace,
    taken: set[str],
) -> list[OciMount]:
    texts = {
        "resolv.conf": resolv_conf(record, joined, settings),
        "hosts": hosts_file(record, joined, place.addresses, settings.host_gateway_ip or place.gateway),
        "hostname": f"{joined.hostname}\n",
    }
    found = []
    for name, text in texts.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o644)
        if f"/etc/{name}" not in taken:
            found.append(OciMount(f"/etc/{name}", "bind", str(directory / name), ("bind", "ro")))
    return found


def _environment(op: RunOp, user: users.User, mounted: MountedSources) -> list[str]:
    """The command's environment: its own, proxies, secrets; HOME if it is not set."""
    merged = dict(entry.partition("=")[::2] for entry in (*op.secret_env, *op.env, *mounted.env))
    merged.setdefault("HOME", user.home)
    return [f"{key}={value}" for key, value in merged.items()]


class _Output:
    """The command's output, passed on as it arrives; the end of it is kept for the error message."""

    def __init__(self, child: Child, log: Log) -> None:
        self._child, self._log = child, log
        self._tail = b""
        self._loop = asyncio.get_running_loop()

    def read(self) -> None:
        """Read all that is available now; called from the loop, and at the end from a thread."""
        rounds = 0
        while chunk := self._child.read():
            self._tail = (self._tail + chunk)[-_TAIL:]
            try:
                asyncio.get_running_loop()
                self._log(chunk)
                rounds += 1
                if rounds > 16:
                    return  # let other work of the loop run
            except RuntimeError:
                self._loop.call_soon_threadsafe(self._log, chunk)

    def tail(self) -> str:
        return self._tail.decode("utf-8", "replace")
