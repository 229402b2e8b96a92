"""``local``: a directory of this host, or a file system that is mounted on it as the options say.

    <root>/<id>/_data        what containers see; owner and mode may become those of an image's directory
    <root>/<id>/.filling     there while the image's content is being copied in
    <root>/<id>/.unsettled   there while the volume's row is written or deleted (wherry.linux.unsettled)
    <root>/<id>/about        a copy of the row
    <root>/.removed-<hex>    moved out of the way, to be deleted

Only root may enter ``<root>``: otherwise the host's users could run a set-user-id program from a volume.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from wherry.errors import Internal, InvalidArgument
from wherry.linux import files, mounts, unsettled
from wherry.linux.lostfound import LostFound
from wherry.model import paths
from wherry.volumes.drivers import local_options

log = logging.getLogger(__name__)

_REMOVED = ".removed-"
_DATA = "_data"


class LocalDriver:
    name = "local"
    scope = "local"

    remote = False

    def __init__(self, root: Path) -> None:
        """:param root: created if it does not exist."""
        self._root = root
        self._lost = LostFound(root.parent)
        root.mkdir(mode=0o701, parents=True, exist_ok=True)

    def check_options(self, options: Mapping[str, str]) -> None:
        local_options.check(options)

    def create(self, volume_id: str, options: Mapping[str, str]) -> None:
        self.check_options(options)
        try:
            self._make_way(volume_id)
            self._directory(volume_id).mkdir(mode=0o701)
            unsettled.mark(self._directory(volume_id))
            self.path(volume_id).mkdir(mode=0o755)
            # independent of the umask
            self._directory(volume_id).chmod(0o701)
            self.path(volume_id).chmod(0o755)
        except OSError as e:
            raise Internal(f"cannot make a volume's directory: {e.strerror or e}") from e

    def _make_way(self, volume_id: str) -> None:
        """An unknown directory appeared after the start,
        when all existing ones were taken up: set it aside."""
        directory = self._directory(volume_id)
        if unsettled.is_marked(directory):
            self.remove(volume_id)
        elif directory.exists():
            log.warning("%s", self._lost.set_aside(directory, "volume", volume_id, "another is made there"))

    def remove(self, volume_id: str) -> None:
        try:
            self._unmount_all(self._directory(volume_id))
            self._directory(volume_id).rename(self._root / f"{_REMOVED}{secrets.token_hex(8)}")
        except FileNotFoundError:
            pass
        except OSError as e:
            raise Internal(f"cannot remove a volume's directory: {e.strerror or e}") from e

    def discard(self) -> None:
        for entry in list(self._root.iterdir()):
            if not entry.name.startswith(_REMOVED):
                continue
            try:
                # The files mounted there belong to somebody else: never delete through a mount.
                self._unmount_all(entry)
                files.remove_tree(entry)
            except OSError as e:
                raise Internal(f"cannot delete a removed volume's data: {e.strerror or e}") from e

    def mount(self, volume_id: str, options: Mapping[str, str]) -> Path:
        path = self.path(volume_id)
        wanted = local_options.mount_of(options)
        if wanted is None or _is_mounted(path):
            return path
        what = f"error while mounting volume '{path}': failed to mount local volume: "
        what += f"mount {wanted.source}:{path}, type: {wanted.type}"
        if wanted.options:
            what += f", data: {','.join(_without_secrets(w) for w in wanted.options)}"
        try:
            mounts.mount(wanted, path)
        except OSError as e:
            mounts.unmount(path)  # A bind without its further flags may have been left.
            kind = InvalidArgument if isinstance(e, FileNotFoundError | NotADirectoryError) else Internal
            raise kind(f"{what}: {(e.strerror or str(e)).lower()}") from e
        return path

    def unmount(self, volume_id: str, options: Mapping[str, str]) -> None:
        if not options.get("device"):
            return
        try:
            self._unmount_all(self._directory(volume_id))
        except OSError as e:
            raise Internal(f"cannot unmount volume {volume_id}: {e.strerror or e}") from e

    def mounted(self) -> set[str]:
        prefix = f"{os.path.realpath(self._root)}/"
        targets = (m.target for m in mounts.read_mounts() if m.target.startswith(prefix))
        return {target.removeprefix(prefix).split("/")[0] for target in targets} & self.ids()

    @staticmethod
    def _unmount_all(directory: Path) -> None:
        """Unmount everything in a volume's directory, the last mount first."""
        for target in mounts.mounts_below(directory):
            mounts.unmount(target)

    def _directory(self, volume_id: str) -> Path:
        return paths.below(self._root, volume_id, what="volume id")

    def path(self, volume_id: str) -> Path:
        return _data_path(self._root, volume_id)

    def usage(self, volume_id: str, options: Mapping[str, str]) -> int:
        if options.get("device"):
            return -1
        seen: set[tuple[int, int]] = set()
        total = 0
        for _path, _directories, names, fd in os.fwalk(self.path(volume_id)):
            for entry in names:
                try:
                    status = os.stat(entry, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                key = (status.st_dev, status.st_ino)
                if stat.S_ISREG(status.st_mode) and key not in seen:
                    total += status.st_size
                    if status.st_nlink > 1:
                        seen.add(key)
        return total

    def status(self, volume_id: str) -> Mapping[str, str]:
        return {}

    def ids(self) -> set[str]:
        return {e.name for e in self._root.iterdir() if e.is_dir() and not e.name.startswith(".")}


@lru_cache(maxsize=8192)
def _data_path(root: Path, volume_id: str) -> Path:
    """Cached: otherwise it would take half of the time of a long list."""
    return paths.below(root, volume_id, what="volume id") / _DATA


def _is_mounted(path: Path) -> bool:
    real = os.path.realpath(path)
    return any(m.target == real for m in mounts.read_mounts())


def _without_secrets(word: str) -> str:
    key, equals, _value = word.partition("=")
    return f"{key}=***" if equals and key in ("password", "pass", "credentials") else word
