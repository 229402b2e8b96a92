"""The daemon's side of the storage's confined children: run one to its end, and read its result.

:mod:`wherry.storage.confined.child.lockdown` has the children's common code.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn

from wherry.errors import Forbidden, Internal, InvalidArgument, Unavailable
from wherry.linux import descriptors
from wherry.linux.forkserver import ForkServer
from wherry.linux.pychild import DEVNULL, PythonChild


class Ending:
    """Ends the child that runs now, and every later one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: PythonChild | None = None
        self.ended = False

    def end(self) -> None:
        """From any thread."""
        with self._lock:
            self.ended = True
            if self._child is not None:
                self._child.kill()

    def hold(self, child: PythonChild | None) -> None:
        with self._lock:
            self._child = child
            if child is not None and self.ended:
                child.kill()


def start(
    module: str, arguments: Sequence[str], *, stdin: int, stdout: int, fds: Sequence[int] = ()
) -> PythonChild:
    """A running child; see :class:`PythonChild`."""
    return PythonChild(
        module, arguments, paths=child_paths(), stdin=stdin, stdout=stdout, fds=fds, server=SERVER
    )


def run(
    module: str,
    arguments: Sequence[str],
    *,
    what: str,
    ending: Ending,
    takers: Mapping[bytes, Callable[[list[bytes]], None]],
    stdin: int = DEVNULL,
    stdout: int = DEVNULL,
    fds: Sequence[int] = (),
) -> list[bytes]:
    """Run a child to its end on this thread. The thread must not end earlier: the child would die with it.

    :param takers: functions for the fields of frames, by the first field (which is not passed on).
    :return: the fields of the last frame without a taker.
    :raises Unavailable: it was ended by the caller. :raises Internal: it ended without such a frame.
    """
    descriptors.require("work on files")
    last: list[bytes] | None = None
    with start(module, arguments, stdin=stdin, stdout=stdout, fds=fds) as child:
        ending.hold(child)
        try:
            while (frame := child.frame()) is not None:
                fields = frame.split(b"\0")
                take = takers.get(fields[0])
                if take is not None:
                    take(fields[1:])
                else:
                    last = fields
            _, code, errors = child.result()
        finally:
            ending.hold(None)
    if last is not None:
        return last
    if ending.ended:
        raise Unavailable(f"{what}: it was broken off")
    raise ended_early(f"{what}: the helper", code, errors)


def ended_early(who: str, code: int, errors: str) -> Internal:
    how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
    return Internal(f"{who} ended early ({how}) {errors.strip()}".rstrip())


def fail(fields: Sequence[bytes], what: str, *, wrong: Collection[int]) -> NoReturn:
    """Raise the error that a result describes: ``bad`` and a clause, or ``os``, errno and a clause.

    :param wrong: the errnos that are the fault of the input.
    :raises InvalidArgument: the input was broken or hostile. :raises Unavailable: the disk is full.
    :raises Forbidden: not permitted for the child, which has few rights; some kernel files nobody may open.
    :raises Internal: the host could not do it.
    """
    reason = fields[-1].decode("utf-8", "replace")
    if fields[0] == b"bad":
        raise InvalidArgument(f"{what}: {reason}")
    number = int(fields[1])
    if number in (errno.ENOSPC, errno.EDQUOT):
        raise Unavailable(f"{what}: {os.strerror(number).lower()}")
    if number in wrong:
        raise InvalidArgument(f"{what}: {reason}")
    if number in (errno.EACCES, errno.EPERM):
        raise Forbidden(f"{what}: {reason}")
    raise Internal(f"{what}: {reason}")


@cache
def child_paths() -> tuple[str, ...]:
    """The directories of this package and of the decompressors;
    the latter are found without importing them."""
    found: dict[str, None] = {}
    for name in ("wherry", "isal", "zstandard"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            found[str(Path(spec.origin).parent.parent)] = None
    return tuple(found)


_CHILD = "wherry.storage.confined.child"


def new_server() -> ForkServer:
    modules = ("loaded", "build_files", "containerfiles", "unpack")
    return ForkServer([f"{_CHILD}.{name}" for name in modules], child_paths)


SERVER: ForkServer | None = new_server()
"""The first child is a new interpreter, and the server starts beside it; children that come within a minute
are forks of it. ``None``: all are new interpreters."""


def stop_server() -> None:
    """Call this at the daemon's end. Blocks until the server has gone."""
    if SERVER is not None:
        SERVER.stop()
