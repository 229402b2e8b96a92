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

from wherry.engine.containers.etcfiles import write_etc_files
from wherry.engine.containers.joined import Joined
from wherry.engine.mounts import places, targets
from wherry.engine.mounts.sources import MountSources
from wherry.engine.mounts.sources import unstage as unstage_mounts
from wherry.engine.settings import Settings
from wherry.engine.volumes.secrets import SecretFiles
from wherry.engine.volumes.secrets import unstage as unstage_secrets
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.linux import cgroups, files, inroot, mounts, rootmounts, users
from wherry.model import oci
from wherry.model.container import Container
from wherry.model.mount import Mount
from wherry.runtime.cdi import Injection
from wherry.runtime.security import parse_security_options
from wherry.runtime.spec import (
    PATH,
    Namespaces,
    OciMount,
    Process,
    SpecRequest,
    build,
)
from wherry.storage.snapshots import Snapshotter
from wherry.volumes.secrets import SecretStore
from wherry.volumes.store import VolumeStore

_PROC = ("proc", "sys")


@dataclass(frozen=True)
class PreparedBundle:
    """A bundle on disk with a complete spec.
    ``needed``: which entries of ``<run>/tasks`` and ``<run>/netns`` the spec names."""

    directory: Path
    command: str
    needed: tuple[str, ...]


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
) -> PreparedBundle:
    """Make the bundle.

    :raises InvalidArgument: the image or the request makes it impossible (user, workdir, mount).
    :raises Conflict: another daemon's processes are in the container's cgroup.
    """
    if is_anothers(record, settings):
        raise Conflict(
            f"cannot start container {record.id[:12]}: processes of a daemon with another root run in its "
            "cgroup; give this daemon a --cgroup-parent of its own"
        )
    bundle = settings.task_directory(record.id)
    rootfs = bundle / "rootfs"
    undo.callback(files.remove_tree, bundle)
    files.remove_tree(bundle)
    rootfs.mkdir(parents=True, mode=0o700)
    bundle.chmod(0o700)
    settings.mark(bundle)
    undo.callback(mounts.unmount, rootfs)
    for layer in snapshotter.mounts(record.id):
        mounts.mount(layer, rootfs)
    ready = MountSources(bundle, volumes, snapshotter, undo)
    root_fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        targets.check(root_fd, rootfs, record.mounts)
        user = users.lookup(root_fd, record.config.user, record.host_config.group_add or ())
        sources = [ready.prepare(point, user) for point in record.mounts]
        sources += write_etc_files(record, joined, settings)
        if joined.shm is not None:
            shm = joined.shm or _make_shm(record, bundle, undo)
            sources.append(OciMount("/dev/shm", "bind", shm, ("rbind", "nosuid", "noexec", "nodev")))
        given = record.host_config.secrets or ()
        targets.check_targets(root_fd, rootfs, [use.target for use in given])
        sources += SecretFiles(bundle, secrets).prepare(given, user, undo)
        places.make(root_fd, sources)
        places.make_mark(root_fd)
        cwd = record.config.working_dir or "/"
        make_workdir(root_fd, cwd, user, [m.destination for m in sources])
    finally:
        os.close(root_fd)
    if _wants_init(record, settings):
        sources.append(OciMount("/sbin/docker-init", "bind", _init_program(settings), ("bind", "ro")))
    sources += [OciMount(*mount) for mount in devices.mounts]
    request = _request(record, joined, devices, settings, rootfs, user, sources)
    (bundle / "config.json").write_bytes(build(request))
    return PreparedBundle(bundle, record.path, _needed(request, settings))


def _needed(request: SpecRequest, settings: Settings) -> tuple[str, ...]:
    named = [request.rootfs, *(mount.source for mount in request.mounts)]
    named += [request.namespaces.network, request.namespaces.ipc, request.namespaces.pid]
    found: dict[str, None] = {}
    for directory in (settings.run / "tasks", settings.run / "netns"):
        for path in named:
            if path.startswith(f"{directory}/"):
                found[f"{directory}/{path.removeprefix(f'{directory}/').partition('/')[0]}"] = None
    return tuple(found)


def _wants_init(record: Container, settings: Settings) -> bool:
    if record.host_config.pid_mode:
        return False  # the namespace has a first process that reaps
    return settings.init if record.host_config.init is None else record.host_config.init


def _init_program(settings: Settings) -> str:
    if not os.access(settings.init_path, os.X_OK):
        raise NotFound(f"cannot use --init: {settings.init_path} does not exist; install package tini")
    return settings.init_path


def _make_shm(record: Container, bundle: Path, undo: ExitStack) -> str:
    """Make a shared memory file system for the task, which other containers may join."""
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
    if _wants_init(record, settings):
        args = ["/sbin/docker-init", "--", *args]
    process = Process(
        args=args,
        env=_with_more(environment(record, user.home, joined.hostname), joined, devices),
        cwd=config.working_dir or "/",
        user=dataclasses.replace(user, groups=tuple(dict.fromkeys((*user.groups, *devices.groups)))),
        terminal=config.tty,
        console_size=host.console_size,
        oom_score_adj=host.oom_score_adj,
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
            cgroup="host" if host.cgroupns_mode == "host" else "",
        ),
        cgroup_path=cgroup_path(record, settings),
        security=parse_security_options(
            host.security_opt or (), privileged=host.privileged, defaults=settings.security
        ),
        architecture=oci.host().architecture,
        mounts=sources,
        sysctls=_sysctls(record, joined),
        has_shm=joined.shm is not None,
        devices=devices,
    )


def _with_more(env: list[str], joined: Joined, devices: Injection) -> list[str]:
    """Add variables of links and devices. The container's own override links'; devices' override all."""
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
    return cgroups.child(parent, record.id)


def is_anothers(record: Container, settings: Settings) -> bool:
    """Whether processes of a daemon with another root run in the container's cgroup. This happens when a copy
    of that root is in use."""
    pids = cgroups.processes(cgroup_path(record, settings))
    return any(rootmounts.is_below_another(pid, settings.root / "snapshots") for pid in pids)


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
    # As Docker: inside its own network namespace a container needs no capability for low ports and ping.
    defaults = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
    return {**defaults, **asked}


def environment(record: Container, home: str, hostname: str) -> list[str]:
    """PATH, HOSTNAME and TERM first, then the container's own variables; HOME last unless it is set.

    A name without a value removes that variable. HOME cannot be removed: if it is empty, the user's home is
    used.
    """
    removed = {entry for entry in record.config.env or () if "=" not in entry}
    own = dict(entry.partition("=")[::2] for entry in record.config.env or () if "=" in entry)
    base = dict([PATH.split("=", 1)])
    base["HOSTNAME"] = hostname
    if record.config.tty:
        base["TERM"] = "xterm"
    merged = {**{name: value for name, value in base.items() if name not in removed}, **own}
    merged["HOME"] = merged.get("HOME") or home
    return [f"{key}={value}" for key, value in merged.items()]


def make_workdir(root_fd: int, cwd: str, user: users.User, mounted: Sequence[str]) -> None:
    """Create the working directory with the user as its owner, beneath the root.

    A directory below a mount is that mount's business and is not made here.
    :raises InvalidArgument: it resolves into procfs, whose links lead outside (CVE-2024-21626), or is a file.
    """
    if cwd == "/":
        return
    try:
        parts = inroot.resolve(root_fd, cwd)
        place = f"/{'/'.join(parts)}"
        if parts[:1] and parts[0] in _PROC and place != cwd.rstrip("/"):
            raise InvalidArgument(f"invalid working directory {cwd}: it leads into /{parts[0]}")
        if parts[:1] == ["proc"] and len(parts) > 1:
            raise InvalidArgument(f"invalid working directory {cwd}: it leads into /proc")
        if not any(p == m or p.startswith(f"{m}/") for m in mounted for p in (cwd, place)):
            inroot.make_directory(root_fd, place, owner=(user.uid, user.gid))
    except NotADirectoryError as e:
        raise InvalidArgument(f"Cannot mkdir: {cwd} is not a directory") from e
    except OSError as e:
        raise InvalidArgument(f"mkdir {cwd}: {os.strerror(e.errno or errno.EIO).lower()}") from e


def first_workdir(record: Container, settings: Settings, snapshotter: Snapshotter) -> None:
    """Make the working directory of a container that has not run yet, so that files can be copied there.

    Errors are ignored: the start reports them.
    """
    cwd = record.config.working_dir or "/"
    if cwd == "/":
        return
    place = settings.task_directory(record.id)
    rootfs = place / "rootfs"
    rootfs.mkdir(parents=True, mode=0o700)
    try:
        for layer in snapshotter.mounts(record.id):
            mounts.mount(layer, rootfs)
        root_fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            user = users.lookup(root_fd, record.config.user, record.host_config.group_add or ())
            make_workdir(root_fd, cwd, user, [m.destination for m in record.mounts])
        except InvalidArgument:
            pass
        finally:
            os.close(root_fd)
    finally:
        mounts.unmount(rootfs)
        files.remove_tree(place)


def let_go(record: Container, settings: Settings) -> int:
    """Unmount the task's file systems; its layer can be removed after that.

    :returns: a descriptor of the layer's, or -1: see :func:`wherry.linux.mounts.let_go`. The layer is mounted
        again only after it was closed.
    """
    bundle = settings.task_directory(record.id)
    loose = mounts.let_go(bundle / "rootfs")
    try:
        mounts.unmount(bundle / "shm")
        unstage_mounts(bundle)
        unstage_secrets(bundle)
    except BaseException:
        if loose >= 0:
            os.close(loose)
        raise
    return loose


def release(record: Container, settings: Settings) -> None:
    """Undo :func:`prepare` for a task that has ended. Parts that are gone already are no error.

    The task's directory is removed last: if it still exists, the next start of the daemon cleans up.
    """
    if (loose := let_go(record, settings)) >= 0:
        os.close(loose)
    cgroups.remove(cgroup_path(record, settings))
    files.remove_tree(settings.task_directory(record.id))
