"""Network namespaces: made and entered on threads that end after that (network_namespaces(7), setns(2)).

A namespace is kept by a bind mount of its nsfs file on ``<directory>/<name>``, as ``ip netns`` does, so that
it outlives the process that made it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from wherry.linux import mounts, syscalls

T = TypeVar("T")


def on_thread(function: Callable[[], T]) -> T:
    """Run ``function`` on a thread of its own and return its result, or raise what it raised."""
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            result.append(function())
        except BaseException as e:
            failure.append(e)

    thread = threading.Thread(target=body, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failure:
        # the traceback would keep this frame, and the frame the exception
        error = failure.pop()
        try:
            raise error
        finally:
            del error
    return result[0]


def inside(path: Path | str, function: Callable[[], T]) -> T:
    """Run ``function`` in the namespace at ``path``, on a thread of its own.

    Sockets that it makes stay in that namespace when they are returned.

    :raises OSError: the path is not a network namespace.
    """

    def enter() -> T:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(fd, syscalls.CLONE_NEWNET)
        finally:
            os.close(fd)
        return function()

    return on_thread(enter)


def create(path: Path, function: Callable[[], T]) -> T:
    """Make a namespace, pin it at ``path``, which must not exist, and run ``function`` in it.

    Nothing is left behind on failure.

    :raises OSError: no right to, or no memory.
    """

    def make() -> T:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        pin("/proc/thread-self/ns/net", path)
        try:
            return function()
        except BaseException:
            unpin(path)
            raise

    return on_thread(make)


def pin(source: str, path: Path) -> None:
    """Keep the namespace behind ``source`` (``/proc/<pid>/ns/net``) at ``path``, which must not exist."""
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400))
    try:
        syscalls.mount(source, str(path), "none", syscalls.MS_BIND)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def unpin(path: Path) -> None:
    """Remove a namespace's pin; if there is none, nothing happens."""
    mounts.unmount(path)
    path.unlink(missing_ok=True)


def is_pinned(path: Path) -> bool:
    """Whether a namespace is mounted at ``path``: an nsfs file is on another device than its directory."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except FileNotFoundError:
        return False


def prepare_directory(directory: Path) -> None:
    """Make ``directory`` a mount point of its own, in a peer group of its own. Idempotent.

    It is detached from its parent (private), so that pins do not appear in existing namespaces. Then it is
    made shared: a mount namespace that is made later is a copy of everything, including the pins. A copy of a
    private mount would keep a removed network alive until that namespace ends, while a peer's copy is removed
    together with the original (mount_namespaces(7), "Propagation type transitions").
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not any(m.target == os.path.realpath(directory) for m in mounts.read_mounts()):
        syscalls.mount(str(directory), str(directory), "none", syscalls.MS_BIND)
        syscalls.mount("none", str(directory), "none", syscalls.MS_PRIVATE)
        syscalls.mount("none", str(directory), "none", syscalls.MS_SHARED)


def remove_directory(directory: Path) -> None:
    """Undo :func:`prepare_directory`, with every pin in it."""
    if directory.is_dir():
        for entry in list(directory.iterdir()):
            unpin(entry)
        mounts.unmount(directory)
        directory.rmdir()
