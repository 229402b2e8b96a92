"""The start of a container, step by step: each step's undo stands beside it.

:func:`prepare` runs on a thread. It mounts the writable layer and the volumes' sources, writes the files
bound into ``/etc``, looks the user up in the image and makes the working directory, all beneath the
container's root by the kernel's own resolution (openat2(2)), never by string.
"""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from wherry.engine import mountpoints, mountsources
from wherry.engine.etcfiles import write_etc_files
from wherry.engine.links import Peer
from wherry.engine.mountsources import MountSources
from wherry.engine.secrets import SecretFiles
from wherry.engine.secrets import unstage as unstage_secrets
from wherry.engine.settings import Settings
from wherry.errors import InvalidArgument, NotFound
from wherry.linux import cgroups, files, mounts, syscalls, users
from wherry.model.container import Container
from wherry.model.mount import Mount
from wherry.runtime.cdi import Injection
from wherry.runtime.spec import (
    PATH,
    Namespaces,
    OciMount,
    Process,
    SpecRequest,
    build,
    parse_security_options,
)
from wherry.storage.snapshots import Snapshotter
from wherry.volumes.secrets import SecretStore
from wherry.volumes.store import VolumeStore

_PROC = ("proc", "sys")


@dataclass(frozen=True)
class Joined:
    """Namespaces taken from elsewhere: a path, ``"host"``, or ``""`` for new ones. ``shm`` is a host path;
    ``names`` says that the daemon answers the container's DNS questions."""

    network: str
    ipc: str = ""
    pid: str = ""
    hostname: str = ""
    shm: str | None = None
    links: tuple[Peer, ...] = ()
    names: bool = False


@dataclass(frozen=True)
class Prepared:
    """A bundle on disk whose spec lacks nothing."""

    directory: Path
    command: str


def prepare(
    record: Container,
    joined: Joined,
    *,
    devices: Injection,
    settings: Settings,
    snapshotter: Snapshotter,
    volumes: VolumeStore,
    secrets: SecretStore,
    undo: ExitStack,
) -> Prepared:
    """Make the bundle.

    :raises InvalidArgument: the image or the request makes it impossible (user, workdir, mount).
    """
    bundle = settings.task_directory(record.id)
    rootfs = bundle / "rootfs"
    undo.callback(files.remove_tree, bundle)
    files.remove_tree(bundle)
    rootfs.mkdir(parents=True, mode=0o700)
    bundle.chmod(0o700)
    undo.callback(mounts.unmount, rootfs)
    for layer in snapshotter.mounts(record.id):
        mounts.mount(layer, rootfs)
    ready = MountSources(bundle, volumes, snapshotter, undo)
    root_fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mountpoints.check(root_fd, rootfs, record.mounts)
        user = users.lookup(root_fd, record.config.user, record.host_config.group_add or ())
        sources = [ready.prepare(point, user) for point in record.mounts]
        sources += write_etc_files(record, joined, settings)
        if joined.shm is not None:
            shm = joined.shm or _make_shm(record, bundle, undo)
            sources.append(OciMount("/dev/shm", "bind", shm, ("rbind", "nosuid", "noexec", "nodev")))
        given = record.host_config.secrets or ()
        mountpoints.check_targets(root_fd, rootfs, [use.target for use in given])
        sources += SecretFiles(bundle, secrets).prepare(given, user, undo)
        cwd = record.config.working_dir or "/"
        make_workdir(root_fd, cwd, rootfs, user, [m.destination for m in sources])
    finally:
        os.close(root_fd)
    if record.host_config.init:
        sources.append(OciMount("/sbin/docker-init", "bind", _init_program(settings), ("bind", "ro")))
    sources += [OciMount(*mount) for mount in devices.mounts]
    request = _request(record, joined, devices, settings, rootfs, user, sources)
    (bundle / "config.json").write_bytes(build(request))
    return Prepared(bundle, record.path)


def _init_program(settings: Settings) -> str:
    if not os.access(settings.init_path, os.X_OK):
        raise NotFound(f"cannot use --init: {settings.init_path} is not there (package tini)")
    return settings.init_path


def _make_shm(record: Container, bundle: Path, undo: ExitStack) -> str:
    """A shared memory file system of the task's own that other containers may join."""
    shm = bundle / "shm"
    shm.mkdir(mode=0o700)
    undo.callback(mounts.unmount, shm)
    size = record.host_config.shm_size
    mounts.mount(Mount("tmpfs", "shm", ("nosuid", "nodev", "noexec", "mode=1777", f"size={size}")), shm)
    return str(shm)


def _request(
    record: Container,
    joined: Joined,
    devices: Injection,
    settings: Settings,
    rootfs: Path,
    user: users.User,
    sources: Sequence[OciMount],
) -> SpecRequest:
    host, config = record.host_config, record.config
    args = [record.path, *record.args]
    if host.init:
        args = ["/sbin/docker-init", "--", *args]
    process = Process(
        args=args,
        env=_with_more(environment(record, user.home, joined.hostname), joined, devices),
        cwd=config.working_dir or "/",
        user=dataclasses.replace(user, groups=tuple(dict.fromkeys((*user.groups, *devices.groups)))),
        terminal=config.tty,
        console_size=host.console_size,
    )
    return SpecRequest(
        hostname=joined.hostname,
        domainname=config.domainname,
        rootfs=str(rootfs),
        process=process,
        host=replace(host, ulimits=_ulimits(record, settings)),
        namespaces=Namespaces(
            network=joined.network,
            ipc=joined.ipc,
            pid=joined.pid,
            uts="host" if host.uts_mode == "host" else "",
            cgroup="host" if host.cgroupns_mode == "host" or host.privileged else "",
        ),
        cgroup_path=cgroup_path(record, settings),
        security=parse_security_options(host.security_opt or (), privileged=host.privileged),
        architecture=record.platform.split("/")[1],
        mounts=sources,
        sysctls=_sysctls(record, joined),
        has_shm=joined.shm is not None,
        devices=devices,
    )


def _with_more(env: list[str], joined: Joined, devices: Injection) -> list[str]:
    """Variables of links, which the container's own go before, and of devices, which go before those."""
    merged = dict(entry.split("=", 1) for peer in joined.links for entry in peer.variables())
    merged |= dict(entry.split("=", 1) for entry in env)
    merged |= dict(entry.partition("=")[::2] for entry in devices.env)
    return [f"{key}={value}" for key, value in merged.items()]


def _ulimits(record: Container, settings: Settings) -> list[object]:
    own = list(record.host_config.ulimits or ())
    named = {limit.name for limit in own}
    return [*own, *(limit for limit in settings.default_ulimits if limit.name not in named)]


def cgroup_path(record: Container, settings: Settings) -> str:
    parent = record.host_config.cgroup_parent or settings.cgroup_parent
    return f"/{parent.strip('/')}/{record.id}"


def _sysctls(record: Container, joined: Joined) -> dict[str, str]:
    asked = dict(record.host_config.sysctls or {})
    for name in asked:
        if name.startswith("net.") and joined.network == "host":
            raise InvalidArgument(f"sysctl '{name}' not allowed in host network namespace")
        if name.startswith(("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")) and joined.ipc == "host":
            raise InvalidArgument(f"sysctl '{name}' not allowed in host ipc namespace")
        if not name.startswith(("net.", "fs.mqueue.", "kernel.shm", "kernel.msg", "kernel.sem")):
            raise InvalidArgument(f"sysctl '{name}' is not allowed")
    if joined.network == "host" or joined.network.startswith("/proc/"):
        return asked
    # As Docker: low ports and ping need no capability inside a network namespace of one's own.
    defaults = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
    return {**defaults, **asked}


def environment(record: Container, home: str, hostname: str) -> list[str]:
    """PATH, HOSTNAME and TERM first, then the container's own; HOME last unless it is set."""
    own = dict(entry.partition("=")[::2] for entry in record.config.env or () if "=" in entry)
    base = dict([PATH.split("=", 1)])
    base["HOSTNAME"] = hostname
    if record.config.tty:
        base["TERM"] = "xterm"
    merged = {**base, **own}
    merged.setdefault("HOME", home)
    return [f"{key}={value}" for key, value in merged.items()]


def make_workdir(root_fd: int, cwd: str, rootfs: Path, user: users.User, mounted: Sequence[str]) -> None:
    """Create the working directory with the user as its owner, beneath the root.

    A directory below a mount is that mount's business and is not made here.
    :raises InvalidArgument: it resolves into procfs, whose links lead outside (CVE-2024-21626), or is a file.
    """
    if cwd == "/" or any(cwd == m or cwd.startswith(m + "/") for m in mounted):
        return
    flags = os.O_PATH | os.O_DIRECTORY
    built = ""
    for part in cwd.strip("/").split("/"):
        built = f"{built}/{part}"
        try:
            fd = syscalls.openat2(root_fd, built, flags)
        except FileNotFoundError:
            fd = _make_directory(root_fd, built, user)
        except OSError as e:
            raise InvalidArgument(f"mkdir {cwd}: {os.strerror(e.errno or errno.EIO).lower()}") from e
        try:
            where = os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), rootfs)
        finally:
            os.close(fd)
        if where.split("/")[0] in _PROC and where != built.strip("/"):
            raise InvalidArgument(f"invalid working directory {cwd}: it leads into /{where.split('/')[0]}")
    if cwd.split("/")[1] == "proc" and cwd != "/proc":
        raise InvalidArgument(f"invalid working directory {cwd}: it leads into /proc")


def _make_directory(root_fd: int, path: str, user: users.User) -> int:
    parent, _, name = path.rpartition("/")
    parent_fd = syscalls.openat2(root_fd, parent or "/", os.O_PATH | os.O_DIRECTORY)
    try:
        try:
            os.mkdir(name, 0o755, dir_fd=parent_fd)
        except FileExistsError as e:
            # A dangling symbolic link: following it would make a directory the image did not ask for.
            raise InvalidArgument(f"mkdir {path}: file exists") from e
        fd = syscalls.openat2(
            parent_fd, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, resolve=syscalls.RESOLVE_BENEATH
        )
        os.fchown(fd, user.uid, user.gid)
        return fd
    finally:
        os.close(parent_fd)


def unmount(record: Container, settings: Settings) -> None:
    """Take the task's file systems out of the host's view; its layer can be removed then."""
    bundle = settings.task_directory(record.id)
    mounts.unmount(bundle / "rootfs")
    mounts.unmount(bundle / "shm")
    mountsources.unstage(bundle)
    unstage_secrets(bundle)


def release(record: Container, settings: Settings) -> None:
    """Undo :func:`prepare` for a task that has ended; what is gone already is fine.

    The task's directory goes last: as long as it is there, the next start knows that something is left.
    """
    unmount(record, settings)
    cgroups.remove(cgroup_path(record, settings))
    files.remove_tree(settings.task_directory(record.id))
