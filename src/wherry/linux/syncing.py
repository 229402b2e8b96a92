"""Sync a file system, once for all callers that want it at the same time."""

from __future__ import annotations

import os
import stat
import threading
from itertools import islice
from pathlib import Path

from wherry.linux import trees
from wherry.linux.files import sync_directory, sync_file_system

_FEW = 32
"""Up to this number of files and directories, a tree is synced one by one: the rest of the file system may
have much to write that nobody waits for."""


class Syncing:
    """Safe to use from any thread."""

    def __init__(self, path: Path) -> None:
        """:param path: on the file system in question."""
        self._path = path
        self._guard, self._turn = threading.Lock(), threading.Lock()
        self._asked = self._done = 0

    def sync_tree(self, root: Path) -> None:
        """Make a tree durable that nobody changes meanwhile.

        :raises OSError: the device fails, or the root is not there.
        """
        found = list(islice(trees.walk(root), _FEW + 1))
        plain = all(stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) for _, status in found)
        # Links and device nodes cannot be opened, so what was changed of them alone could be left behind.
        if len(found) > _FEW or not plain:
            self.sync()
            return
        for path, status in found:
            place = root / os.fsdecode(path)
            if stat.S_ISDIR(status.st_mode):
                sync_directory(place)
            else:
                _sync_file(place)
        sync_directory(root)
        sync_directory(root.parent)

    def sync(self) -> None:
        """Returns when everything that was written before this call is on the device: by a sync of its own,
        or by one that another thread began after this call. :raises OSError: the device fails.
        """
        with self._guard:
            self._asked += 1
            mine = self._asked
        with self._turn:
            if self._done >= mine:
                return
            with self._guard:
                covered = self._asked
            sync_file_system(self._path)
            self._done = covered


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
