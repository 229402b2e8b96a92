"""How far mmdebstrap is: its hooks say each step and a size into a FIFO, and whoever waits is told.

setup        nothing is there yet            essential    the packages without which no other can be installed
extract      packages fetched and unpacked   customize    all are installed
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from wherry import threads

Stage = Callable[[str], None]
_END = b"end"
_ARCHIVES = 'cat "$1"/var/cache/apt/archives/*.deb 2>/dev/null | wc -c'
_FILES = 'du -sxB1 "$1" 2>/dev/null | cut -f1'
_HOOKS = (("setup", "echo 0"), ("extract", _ARCHIVES), ("essential", _FILES), ("customize", _FILES))
_WORDS = {
    "setup": "fetching packages",
    "extract": "unpacked {} of packages",
    "essential": "installing ({} so far)",
    "customize": "installed, {}",
}
_LINE_MAX = 4096


@contextmanager
def hooks(stage: Stage) -> Iterator[list[str]]:
    """Flags for mmdebstrap; ``stage`` is told on another thread, until the end of the ``with``."""
    with tempfile.TemporaryDirectory(prefix="wherry-steps-") as directory:
        fifo = Path(directory) / "steps"
        os.mkfifo(fifo, 0o600)
        # both ways: a hook never waits for a reader, nor does reading end between two hooks
        fd = os.open(fifo, os.O_RDWR | os.O_CLOEXEC)
        try:
            telling = threads.pump.submit(_tell, fd, stage)
            try:
                yield [
                    f"--{name}-hook=echo {name} $({size}) >{quote(str(fifo))} || true"
                    for name, size in _HOOKS
                ]
            finally:
                os.write(fd, b"\n" + _END + b"\n")
                telling.result()
        finally:
            os.close(fd)


def _tell(fd: int, stage: Stage) -> None:
    rest = b""
    while True:
        *lines, rest = (rest + os.read(fd, _LINE_MAX)).split(b"\n")
        rest = rest[-_LINE_MAX:]
        for line in lines:
            if line == _END:
                return
            name, _, size = line.decode(errors="replace").partition(" ")
            if name in _WORDS:
                stage(_WORDS[name].format(megabytes(int(size) if size.isdigit() else 0)))


def megabytes(size: int) -> str:
    """Bytes for people: ``30.1MB``."""
    return f"{size / 1e6:.1f}MB"
