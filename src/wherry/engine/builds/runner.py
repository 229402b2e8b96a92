"""RUN: one command in a container that is nobody's, straight below the daemon.

It needs no conmon, as nobody attaches to it and it does not outlive the build. Its bundle is a task like any
other below ``<run>/tasks``, with an id of the same form, so the next start of a killed daemon ends and
removes it (see engine.reconcile). Networks are pooled: steps of a build that follow each other use the same
one.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from wherry.build.graph import RunOp
from wherry.build.solve import Log
from wherry.engine import mountpoints
from wherry.engine.builds.mounts import Mounted, MountMaker
from wherry.engine.builds.stubs import Stubs
from wherry.engine.bundle import Joined, make_workdir
from wherry.engine.devices import Devices
from wherry.engine.etcfiles import hosts_file, resolv_conf
from wherry.engine.settings import Settings
from wherry.errors import InvalidArgument, WherryError
from wherry.linux import cgroups, files, mounts, users
from wherry.linux.process import Child
from wherry.model import oci
from wherry.model.container import Container, ContainerConfig, DeviceRequest, HostConfig
from wherry.model.digest import Digest
from wherry.model.mount import Mount
from wherry.network.manager import NetworkManager
from wherry.runtime.cdi import Injection
from wherry.runtime.spec import (
    Namespaces,
    OciMount,
    Process,
    SpecRequest,
    build,
    parse_security_options,
)
from wherry.runtime.task import Runtime

_TAIL = 4096
_HOSTNAME = "buildkitsandbox"
"""The name that builds have always had: programs write it into what they make."""


class RunFailed(InvalidArgument):
    """The command ended with another status than 0. ``tail`` is the end of its output."""

    def __init__(self, message: str, exit_code: int, tail: str) -> None:
        super().__init__(message)
        self.exit_code, self.tail = exit_code, tail


@dataclass(frozen=True)
class Limits:
    """What a build asks for each of its RUNs, as Docker's query has it."""

    host: HostConfig = field(default_factory=HostConfig)
    hostname: str = ""


@dataclass
class Started:
    """A running command, and what takes it all back."""

    id: str
    child: Child
    undo: ExitStack
    directory: Path


class Networks:
    """The network namespaces of one build: made when needed, used by one step at a time, gone at its end."""

    def __init__(self, network: NetworkManager) -> None:
        self._network = network
        self._idle: dict[str, list[tuple[str, str, str]]] = {}
        self._all: list[str] = []

    def take(self, mode: str) -> tuple[str, str, str]:
        """(sandbox id, address, gateway). Blocks."""
        idle = self._idle.setdefault(mode, [])
        if idle:
            return idle.pop()
        identifier = secrets.token_hex(32)
        self._all.append(identifier)
        sandbox = self._network.create_sandbox(identifier, name="build", network_mode=mode)
        endpoint = sandbox.endpoints[0] if sandbox.endpoints else None
        return identifier, endpoint.ip if endpoint else "", endpoint.gateway if endpoint else ""

    def give_back(self, mode: str, sandbox: tuple[str, str, str], *, clean: bool) -> None:
        """:param clean: nothing in it can have been changed."""
        if clean:
            self._idle[mode].append(sandbox)

    def close(self) -> None:
        """Blocks."""
        for identifier in self._all:
            self._network.delete_sandbox(identifier)
        self._all, self._idle = [], {}


class Runner:
    def __init__(
        self,
        *,
        settings: Settings,
        runtimes: Mapping[str, Runtime],
        network: NetworkManager,
        devices: Devices,
    ) -> None:
        self._settings = settings
        self._runtime = runtimes[settings.default_runtime]
        self._network = network
        self._devices = devices

    def networks(self) -> Networks:
        """For one build."""
        return Networks(self._network)

    async def run(
        self,
        op: RunOp,
        root: Mount,
        *,
        maker: MountMaker,
        platform: str,
        networks: Networks,
        limits: Limits,
        log: Log,
    ) -> None:
        """Run a command on the files that ``root`` mounts. Cancelled, it ends what it began.

        :raises RunFailed: it ended with another status than 0. :raises InvalidArgument: it cannot be run.
        """
        starting = asyncio.ensure_future(
            asyncio.to_thread(self._start, op, root, maker, platform, networks, limits)
        )
        try:
            started = await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait([starting])
            if starting.exception() is None:
                await asyncio.to_thread(self._end, starting.result(), True)
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
            code = await asyncio.shield(asyncio.to_thread(self._end, started, killed, output))
        if code:
            self._failed(op, code, output)

    @staticmethod
    def _failed(op: RunOp, code: int, output: _Output) -> None:
        command = " ".join(op.args)
        text = f"The command '{command}' returned a non-zero code: {code}"
        raise RunFailed(text, code, output.tail())

    # ---- on a thread ---------------------------------------------------------------------------------------

    def _start(
        self,
        op: RunOp,
        root: Mount,
        maker: MountMaker,
        platform: str,
        networks: Networks,
        limits: Limits,
    ) -> Started:
        identifier = secrets.token_hex(32)
        directory = self._settings.task_directory(identifier)
        threading.Thread(target=cgroups.ease_attach, daemon=True).start()
        with ExitStack() as undo:
            undo.callback(files.remove_tree, directory)
            rootfs = directory / "rootfs"
            rootfs.mkdir(parents=True, mode=0o700)
            directory.chmod(0o700)
            undo.callback(mounts.unmount, rootfs)
            mounts.mount(root, rootfs)
            network, address, gateway = self._join(op, networks, undo)
            self._write_spec(
                op, identifier, directory, maker, platform, limits, (network, address, gateway), undo
            )
            cgroup = self._cgroup(identifier, limits.host)
            undo.callback(_remove_cgroup, cgroup)
            undo.callback(self._runtime.delete, identifier)
            child = self._runtime.run_bundle(identifier, directory)
            return Started(identifier, child, undo.pop_all(), directory)

    def _join(self, op: RunOp, networks: Networks, undo: ExitStack) -> tuple[str, str, str]:
        """The path of the network namespace, the address in it, the gateway."""
        if op.network == "host":
            return "host", "", ""
        mode = "bridge" if op.network == "default" else op.network
        sandbox = networks.take(mode)
        undo.callback(networks.give_back, mode, sandbox, clean=op.security == "sandbox")
        return str(self._settings.run / "netns" / sandbox[0]), sandbox[1], sandbox[2]

    def _write_spec(
        self,
        op: RunOp,
        identifier: str,
        directory: Path,
        maker: MountMaker,
        platform: str,
        limits: Limits,
        network: tuple[str, str, str],
        undo: ExitStack,
    ) -> None:
        insecure = op.security == "insecure"
        host = replace(limits.host, privileged=insecure)
        name = limits.hostname or (socket.gethostname() if op.network == "host" else _HOSTNAME)
        joined = Joined(network[0], hostname=name)
        record = _record(identifier, host, name)
        mounted = maker.make(op, directory, undo)
        taken = {m.destination for m in mounted.mounts}
        sources = [*_etc(record, joined, self._settings, directory, network, taken), *mounted.mounts]
        devices = self._inject(op)
        root_fd = os.open(directory / "rootfs", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        undo.callback(os.close, root_fd)
        mountpoints.check_targets(root_fd, directory / "rootfs", [m.destination for m in sources])
        user = users.lookup(root_fd, op.user)
        make_workdir(root_fd, op.cwd, directory / "rootfs", user, [m.destination for m in sources])
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
            namespaces=Namespaces(network=network[0], uts="host" if op.network == "host" else "", cgroup=""),
            cgroup_path=self._cgroup(identifier, host),
            security=parse_security_options(host.security_opt or (), privileged=insecure),
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
        return f"/{parent.strip('/')}/{identifier}"

    def _end(self, started: Started, killed: bool, output: _Output | None = None) -> int:
        """Take everything back; the exit code. Blocks."""
        if killed:
            try:
                self._runtime.delete(started.id)
            except WherryError:
                pass  # what is left of it ends with its cgroup below
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
        return  # it holds a process that does not end; the next start tries again


def _record(identifier: str, host: HostConfig, hostname: str) -> Container:
    """As much of a container as the files in ``/etc`` need."""
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
    network: tuple[str, str, str],
    taken: set[str],
) -> list[OciMount]:
    texts = {
        "resolv.conf": resolv_conf(record, joined, settings),
        "hosts": hosts_file(record, joined, network[1], network[2]),
        "hostname": f"{joined.hostname}\n",
    }
    found = []
    for name, text in texts.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o644)
        if f"/etc/{name}" not in taken:
            found.append(OciMount(f"/etc/{name}", "bind", str(directory / name), ("bind", "ro")))
    return found


def _environment(op: RunOp, user: users.User, mounted: Mounted) -> list[str]:
    """What the command sees: its own, proxies, secrets, HOME where nobody said."""
    merged = dict(entry.partition("=")[::2] for entry in (*op.secret_env, *op.env, *mounted.env))
    merged.setdefault("HOME", user.home)
    return [f"{key}={value}" for key, value in merged.items()]


class _Output:
    """What the command prints, handed on as it comes; the end of it is kept for the error."""

    def __init__(self, child: Child, log: Log) -> None:
        self._child, self._log = child, log
        self._tail = b""
        self._loop = asyncio.get_running_loop()

    def read(self) -> None:
        """Until there is nothing to read now; from the loop, and at the end from a thread."""
        rounds = 0
        while chunk := self._child.read():
            self._tail = (self._tail + chunk)[-_TAIL:]
            try:
                asyncio.get_running_loop()
                self._log(chunk)
                rounds += 1
                if rounds > 16:
                    return  # others want the loop as well
            except RuntimeError:
                self._loop.call_soon_threadsafe(self._log, chunk)

    def tail(self) -> str:
        return self._tail.decode("utf-8", "replace")
