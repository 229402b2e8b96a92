"""Mount points that a RUN needs and its files lack: made before it and removed after it, without a trace.

If the command has put something in such a place, that stays. No name is looked up twice: the directory of a
stub is held open. So wherever the command moves that directory, only what was made there is removed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

from wherry.errors import InvalidArgument
from wherry.linux import syscalls


class Stubs:
    """The stubs in one root, given by its descriptor."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._made: list[tuple[int, str]] = []

    def make(self, targets: Iterable[tuple[str, bool]]) -> None:
        """:param targets: absolute paths, and whether each is a directory.

        :raises InvalidArgument: something is in the way.
        """
        for target, directory in targets:
            parts = [part for part in target.split("/") if part]
            for depth, name in enumerate(parts):
                path = "/".join(parts[: depth + 1])
                if self._exists(path):
                    continue
                above = syscalls.openat2(
                    self._root, "/".join(parts[:depth]) or ".", os.O_RDONLY | os.O_DIRECTORY
                )
                try:
                    self._one(above, name, directory or depth < len(parts) - 1)
                except BaseException as e:
                    os.close(above)
                    if isinstance(e, OSError):
                        raise InvalidArgument(f"cannot mount on {target}: {e.strerror}") from e
                    raise
                self._made.append((above, name))

    def _exists(self, path: str) -> bool:
        try:
            os.close(syscalls.openat2(self._root, path, os.O_PATH))
        except OSError as e:
            if e.errno in (errno.ENOENT, errno.ENOTDIR):
                return False
            raise InvalidArgument(f"cannot mount on /{path}: {e.strerror}") from e
        return True

    @staticmethod
    def _one(above: int, name: str, directory: bool) -> None:
        before = os.fstat(above)
        if directory:
            os.mkdir(name, 0o755, dir_fd=above)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o644, dir_fd=above))
        os.utime(above, ns=(before.st_atime_ns, before.st_mtime_ns))

    def remove(self) -> None:
        """Remove the stubs that are unchanged. Call it once the mounts are gone."""
        for above, name in reversed(self._made):
            try:
                before = os.fstat(above)
                status = os.stat(name, dir_fd=above, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    os.rmdir(name, dir_fd=above)
                elif stat.S_ISREG(status.st_mode) and status.st_size == 0:
                    os.unlink(name, dir_fd=above)
                else:
                    continue
                os.utime(above, ns=(before.st_atime_ns, before.st_mtime_ns))
            except OSError:
                continue  # it is in use by now, or gone
            finally:
                os.close(above)
        self._made = []

    def forget(self) -> None:
        for above, _ in self._made:
            os.close(above)
        self._made = []
