"""A disk whose power can be cut: what was not made durable by then is gone.

An ext4 file system on a loop device is shut down by its own ioctl, which neither flushes its log nor any data
(FS_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH, fs/ext4/ioctl.c; xfstests does the same). What the device
has at that moment is all that the next mount finds.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from pathlib import Path

_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
_NO_LOG_FLUSH = 2


class Disk:
    def __init__(self, image: Path, where: Path, *, size: int) -> None:
        """:param size: bytes."""
        self._image, self._where, self._count = image, where, 0
        with image.open("wb") as file:
            file.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
        where.mkdir(exist_ok=True)

    def mount(self) -> None:
        # Nothing is written back by itself for as long as a test takes.
        subprocess.run(["mount", "-o", "loop,commit=3600", str(self._image), str(self._where)], check=True)

    def cut(self) -> None:
        fd = os.open(self._where, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def unmount(self) -> None:
        """Everything on it, the last one first."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        below = [m for line in lines if (m := line.split(" ")[4]).startswith(f"{self._where}/")]
        for mount in (*reversed(below), str(self._where)):
            subprocess.run(["umount", "-l", mount], check=False, stderr=subprocess.DEVNULL)

    def swap(self) -> None:
        """Go on with a copy of what the device has. Whoever made a mount namespace meanwhile keeps the old
        file system, and the kernel would find that again for the same device."""
        self._count += 1
        image = self._image.with_name(f"image{self._count}")
        subprocess.run(["cp", "--sparse=always", str(self._image), str(image)], check=True)
        self._image.unlink()
        self._image = image

    def check(self) -> None:
        """The file system itself is sound, once its log is played back."""
        done = subprocess.run(["e2fsck", "-fy", str(self._image)], capture_output=True, check=False)
        assert done.returncode in (0, 1), done.stdout.decode()
