"""The mount targets in a container's root, made as Docker makes them.

The OCI runtime also creates missing targets. But it fails at a link of the image that leads nowhere, and it
leaves world-writable directories behind.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from wherry.errors import InvalidArgument
from wherry.linux import inroot
from wherry.runtime.spec import OciMount

_KERNELS = ("proc", "sys", "dev")
"""What the runtime mounts itself: files of the root below these are hidden."""


def make(root_fd: int, mounts: Sequence[OciMount]) -> None:
    """Make them in the root, or in the directory that is mounted above the target, if there is one.

    :raises InvalidArgument: something is in the way.
    """
    for mount in mounts:
        above = _above(mount, mounts)
        if above is None:
            _make(root_fd, mount.destination, mount)
            continue
        rest = mount.destination[len(above.destination) :]
        if above.type == "bind" and "ro" not in above.options and os.path.isdir(above.source):
            fd = os.open(above.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _make(fd, rest, mount)
            finally:
                os.close(fd)


_MARK = ".dockerenv"
"""Programs tell by it that they run in a container."""


def make_mark(root_fd: int) -> None:
    """Make the mark that Docker's containers have in their root, unless the image has something there."""
    with contextlib.suppress(NotADirectoryError, IsADirectoryError):
        inroot.make_file(root_fd, _MARK)


def _above(mount: OciMount, mounts: Sequence[OciMount]) -> OciMount | None:
    """The mount that contains this target: the nearest one above it."""
    found = [m for m in mounts if m is not mount and mount.destination.startswith(f"{m.destination}/")]
    return max(found, key=lambda m: len(m.destination), default=None)


def _make(root_fd: int, path: str, mount: OciMount) -> None:
    try:
        parts = inroot.resolve(root_fd, path)
        if parts[:1] and parts[0] in _KERNELS:
            return
        if mount.type != "bind" or Path(mount.source).is_dir():
            inroot.make_directory(root_fd, path)
        else:
            inroot.make_file(root_fd, path)
    except NotADirectoryError:
        return  # a file is in the way, or is the target itself: the runtime reports which
    except OSError as e:
        raise InvalidArgument(
            f"cannot mount over {mount.destination}: {(e.strerror or str(e)).lower()}"
        ) from e
