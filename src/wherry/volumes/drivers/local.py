"""``local``: a directory of this host.

    <root>/<name>/_data      what containers see; owner and mode may become those of an image's directory
    <root>/<name>/.filling   there while the image's content is being copied in
    <root>/.removed-<hex>    taken out of the way, to be deleted

Below ``<root>`` only root may look: a set-id program in a volume is no business of the host's users.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from wherry.errors import Internal, InvalidArgument, NotImplemented_
from wherry.linux import files

_KNOWN_OPTIONS = ("type", "o", "device", "size")
_REMOVED = ".removed-"


class LocalDriver:
    name = "local"

    def __init__(self, root: Path) -> None:
        """:param root: made if it is not there."""
        self._root = root
        root.mkdir(mode=0o701, parents=True, exist_ok=True)

    def check_options(self, options: Mapping[str, str]) -> None:
        for option in options:
            if option not in _KNOWN_OPTIONS:
                raise InvalidArgument(f'invalid option: "{option[:64]}"')
            raise NotImplemented_(f'option "{option}" of the local volume driver is not implemented yet')

    def create(self, name: str, options: Mapping[str, str]) -> None:
        self.check_options(options)
        try:
            self.remove(name)
            (self._root / name).mkdir(mode=0o701)
            (self._root / name / "_data").mkdir(mode=0o755)
            # whatever the umask said
            (self._root / name).chmod(0o701)
            (self._root / name / "_data").chmod(0o755)
        except OSError as e:
            raise Internal(f"cannot make a volume's directory: {e.strerror or e}") from e

    def remove(self, name: str) -> None:
        try:
            (self._root / name).rename(self._root / f"{_REMOVED}{secrets.token_hex(8)}")
        except FileNotFoundError:
            pass
        except OSError as e:
            raise Internal(f"cannot remove a volume's directory: {e.strerror or e}") from e

    def discard(self) -> None:
        for entry in list(self._root.iterdir()):
            if entry.name.startswith(_REMOVED):
                try:
                    files.remove_tree(entry)
                except OSError as e:
                    raise Internal(f"cannot delete a removed volume's data: {e.strerror or e}") from e

    def path(self, name: str) -> Path:
        return self._root / name / "_data"

    def usage(self, name: str) -> int:
        seen: set[tuple[int, int]] = set()
        total = 0
        for _path, _directories, names, fd in os.fwalk(self.path(name)):
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

    def names(self) -> set[str]:
        return {e.name for e in self._root.iterdir() if e.is_dir() and not e.name.startswith(".")}
