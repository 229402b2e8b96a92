"""The machine's disk: room for temporary files, and copies of the trees that are opened file by file.

Each file that is opened on the host's tree is a request to the host, which an emulated machine waits for: a
daemon opens a thousand to start. Copies on a disk of the machine's own are read by its kernel alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

COPIES = ".host"
"""The directory on the disk below which a copy has the path of what it is a copy of."""


def trees(project: Path) -> list[Path]:
    """What Python reads: code, tests, environment and standard library, none within another."""
    wanted = (project / "src", project / "tests", Path(sys.prefix), Path(sysconfig.get_paths()["stdlib"]))
    every = sorted({path.resolve() for path in wanted})
    return [path for path in every if not any(other in path.parents for other in every)]


def make(disk: Path, size: int, copied: Sequence[Path], staging: Path) -> None:
    """An ext4 file system of ``size`` bytes in the sparse file ``disk``, with copies of ``copied``.

    ``staging`` is a directory that does not exist yet; it is gone afterwards.

    :raises subprocess.CalledProcessError: mkfs.ext4 refused, which its standard error explains."""
    with disk.open("wb") as file:
        file.truncate(size)
    staging.mkdir()
    try:
        for tree in copied:
            _linked(tree, staging / COPIES / tree.relative_to("/"))
        # as root's, and no time is spent on what a new file system need not have at once
        argv = [
            "mkfs.ext4",
            "-q",
            "-F",
            "-E",
            "root_owner=0:0,lazy_itable_init=1",
            "-d",
            str(staging),
            str(disk),
        ]
        subprocess.run(argv, check=True, capture_output=True, text=True)
    finally:
        shutil.rmtree(staging)


def _linked(tree: Path, place: Path) -> None:
    """The same files by other names, where the file system can; copies elsewhere."""

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:
            shutil.copy2(source, target, follow_symlinks=False)

    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(tree, place, symlinks=True, copy_function=link)
