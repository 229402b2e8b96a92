"""A mount namespace to start containers in, without the mounts of all the others.

An OCI runtime gives each container a copy of the mount namespace that it is run in, and reads the table of
all its mounts: with a thousand containers, each start would copy two thousand mounts for nothing. So one
copy of the host's namespace is kept from which the mounts below certain directories (those of the tasks) are
removed. A start is given a copy of that copy, with the few mounts of its own task moved in.

For a container it makes no difference: the copy has the host's mounts, each in the peer group of the
original, and is compared with the host's before each use (``mountids``: the kernel must be Linux 6.8). When
anything else than the tasks' own mounts has changed, it is made again, or the start does without. It is
dropped soon after its last use, so that it does not keep busy what is unmounted on the host. A single start
does not wait for it.

The directories must be mounts of their own (:func:`prepare`), because what is mounted and unmounted in a copy
below a shared mount appears and disappears on the host as well (mount_namespaces(7)).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from wherry.linux import mountids, mounts, syscalls
from wherry.linux.netns import on_thread

log = logging.getLogger(__name__)

_LEAST = 64
"""Fewer mounts of tasks than this are copied faster than a space is entered."""
_PAUSE = 10.0
"""Seconds between two times that the copy is made: it takes longer than a start without it."""
_IDLE = 5.0
"""Seconds without a start after which the copy is dropped; a start after such a time does without."""


def prepare(directory: Path) -> bool:
    """Make a directory a private mount of its own; whether it is one now. Idempotent.

    If there are mounts below it already, it is left as it is: a new mount would hide them.
    """
    real = os.path.realpath(directory)
    try:
        entries = [entry.target for entry in mounts.read_mounts()]
        if real in entries:
            return True
        if any(target.startswith(f"{real}/") for target in entries):
            return False
        mountids.below(mountids.of_path(real))
        syscalls.mount(real, real, "none", syscalls.MS_BIND)
        try:
            syscalls.mount("none", real, "none", syscalls.MS_PRIVATE)
        except OSError:
            mounts.unmount(real)
            raise
    except OSError as e:
        log.debug("containers are started in the host's mount namespace: %s", e)
        return False
    return True


def release(directory: Path) -> None:
    """Undo :func:`prepare`; if it was not done, nothing happens."""
    with suppress(FileNotFoundError):
        mounts.unmount(directory)


class LaunchSpace:
    """Safe to use from any thread. Use :meth:`entered` for each start; :meth:`close` at the end."""

    def __init__(self, hidden: Sequence[Path], *, least: int = _LEAST) -> None:
        """:param hidden: directories, each a mount of its own, below which mounts are left out.
        :param least: with fewer mounts below them, starts do without."""
        self._hidden = [os.path.realpath(directory) for directory in hidden]
        self._least = least
        self._lock = threading.Lock()
        self._copy = -1
        self._signature: object = None
        self._made, self._used = -_PAUSE, -_IDLE
        self._timer: threading.Timer | None = None

    @contextmanager
    def entered(self, needed: Iterable[str]) -> Iterator[str | None]:
        """The path of a namespace for one start (for nsenter(1)), valid inside the ``with``; ``None`` if the
        start does without.

        :param needed: paths right below the hidden directories; what is mounted on and below them is there.
        """
        with ExitStack() as stack:
            try:
                space = self._space(list(needed), stack)
            except OSError as e:
                log.debug("a container is started in the host's mount namespace: %s", e)
                space = None
            yield space

    def is_wanted(self) -> bool:
        """Whether there are so many mounts that a start uses the copy, once it is there."""
        try:
            return len(self._others()) >= self._least
        except OSError:
            return False

    def _others(self) -> frozenset[int]:
        """The mounts of tasks."""
        hidden = [mountids.of_path(directory) for directory in self._hidden]
        return frozenset().union(*map(mountids.below, hidden))

    def _space(self, needed: list[str], stack: ExitStack) -> str | None:
        copy = self._current(stack)
        if copy is None:
            return None
        trees = []
        for path in needed:
            flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE | os.O_CLOEXEC
            tree = syscalls.open_tree(syscalls.AT_FDCWD, path, flags)
            stack.callback(os.close, tree)
            trees.append((tree, path))

        def make() -> int:
            syscalls.unshare(syscalls.CLONE_FS)
            syscalls.setns(copy, syscalls.CLONE_NEWNS)
            syscalls.unshare(syscalls.CLONE_NEWNS)
            for tree, path in trees:
                syscalls.move_mount(tree, "", syscalls.AT_FDCWD, path, syscalls.MOVE_MOUNT_F_EMPTY_PATH)
            return _own_namespace()

        made = on_thread(make)
        stack.callback(os.close, made)
        path = f"/proc/{os.getpid()}/fd/{made}"
        # /proc may be that of another pid namespace, where the number is another process's.
        return path if os.path.samestat(os.stat(path), os.fstat(made)) else None

    def _current(self, stack: ExitStack) -> int | None:
        """A descriptor of the copy, as the host is now, which the stack closes; ``None`` to do without."""
        with self._lock:
            before, self._used = self._used, time.monotonic()
            everything = mountids.below()  # first: what comes or goes from now on is not held against us
            others = self._others()
            if len(others) < self._least:
                self._drop()
                return None
            signature = mountids.described(sorted(everything - others))
            if self._copy < 0 or signature != self._signature:
                self._drop()
                if self._used > before + _IDLE or self._used < self._made + _PAUSE:
                    return None
                self._made = self._used
                self._copy, self._signature = on_thread(self._make), signature
            if self._timer is None:
                self._wait(_IDLE)
            held = os.dup(self._copy)
            stack.callback(os.close, held)
            return held

    def _make(self) -> int:
        syscalls.unshare(syscalls.CLONE_FS)
        syscalls.unshare(syscalls.CLONE_NEWNS)
        for directory in self._hidden:
            # From now on, what happens below it stays in this namespace. This fails if it is not a mount.
            syscalls.mount("none", directory, "none", syscalls.MS_PRIVATE)
        targets = [entry.target for entry in mounts.read_mounts("thread-self")]
        for target in reversed(targets):
            if any(target.startswith(f"{directory}/") for directory in self._hidden):
                mounts.unmount(target)
        return _own_namespace()

    def _wait(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._drop_if_idle)
        self._timer.daemon = True
        self._timer.start()

    def _drop_if_idle(self) -> None:
        with self._lock:
            if self._timer is not None and (left := self._used + _IDLE - time.monotonic()) > 0:
                self._wait(left)
            else:
                self._drop()

    def _drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._copy >= 0:
            os.close(self._copy)
            self._copy = -1

    def close(self) -> None:
        """Drop the copy; it is made again if there is another start."""
        with self._lock:
            self._drop()


def _own_namespace() -> int:
    return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
