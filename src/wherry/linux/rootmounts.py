"""Whose files a process has as its root.
The mounts show it, and a container cannot change those from inside."""

from __future__ import annotations

import os
import re
from pathlib import Path

from wherry.linux.mounts import MountEntry, read_mounts

_UPPER = re.compile(r"(?:^|,)upperdir=((?:[^,\\]|\\.)*)")


def is_below_another(pid: int, snapshots: Path) -> bool:
    """Whether a process's root is a snapshot that is certainly not below ``snapshots``, a daemon's directory
    of them. ``False`` also if the root does not show it, and if the process is gone."""
    try:
        roots = [entry for entry in read_mounts(pid) if entry.target == "/"]
        return bool(roots) and _is_elsewhere(roots[-1], pid, snapshots)
    except OSError:
        return False


def _is_elsewhere(root: MountEntry, pid: int, snapshots: Path) -> bool:
    if root.type == "overlay":
        upper = _UPPER.search(root.options)
        place = Path(re.sub(r"\\(.)", r"\1", upper[1])) if upper is not None else None
        return place is not None and place.is_absolute() and not place.is_relative_to(snapshots)
    parts = Path(root.root).parts
    if len(parts) < 4 or parts[-4] != "snapshots" or parts[-1] != "fs":
        return False
    try:
        ours = os.stat(snapshots.joinpath(*parts[-3:]))
    except FileNotFoundError:
        return True
    return not os.path.samestat(ours, os.stat(f"/proc/{pid}/root"))
