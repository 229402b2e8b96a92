"""Limits memory use: how glibc returns free memory to the system (mallopt(3), malloc_trim(3)), and which
objects the garbage collector visits."""

from __future__ import annotations

import ctypes
import gc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE = 256 << 10
_KEPT = 1 << 20
_ARENAS = 2


def settle() -> None:
    """Make glibc return memory to the system when it is freed.

    By default, glibc keeps as much free memory as the largest block that was ever freed. Every thread also
    has its own arena, which keeps the memory that was freed in it.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc's
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)
        libc.mallopt(_M_ARENA_MAX, _ARENAS)


def grow() -> None:
    """Turn the garbage collector off until :func:`keep`: all objects made during start-up are permanent."""
    gc.disable()


def keep() -> None:
    """Exclude every object that exists now from garbage collection.

    A full collection holds the interpreter's lock while it visits every object: some 50 ms for the daemon's
    modules, which stay for ever. Afterwards it visits only newer objects. This function itself runs one full
    collection first, so that no garbage is kept.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


def give_back() -> None:
    """Also return free memory in the middle of the heap; takes some ten milliseconds.

    First it collects reference cycles: an exception and its frames refer to each other, and keep all data
    alive that the frames had read.
    """
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
