"""Check names from outside that become parts of paths on this host.

A name from a client, a registry or an image must be a single entry in a directory, and a path from there must
stay below our directory. Rooms have further rules for the names of their own objects; this check applies to
every name, and is repeated where the path is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from wherry.errors import InvalidArgument

NAME_MAX = 255
"""The longest name, in bytes (limits.h)."""
_NEVER = re.compile(r"[/\x00-\x1f\x7f]")
_TOTAL_MAX = 2048
_SHOWN = 80


def component(name: str, what: str) -> str:
    """Check ``name`` as the name of one entry in a directory, and return it.

    :param what: the kind of object, for the error.
    :raises InvalidArgument: it is empty, ``.`` or ``..``, has a slash or a control character, is too long for
        a file system, or is not valid text.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= NAME_MAX or name in (".", "..") or _NEVER.search(name):
        raise InvalidArgument(f"invalid {what} {name[:_SHOWN]!r}: it is not a valid file name")
    return name


def below(base: Path, *names: str, what: str = "name") -> Path:
    """``base/name/…``, safe for any names. :raises InvalidArgument: see :func:`component`."""
    for name in names:
        base = base / component(name, what)
    return base


def components(path: str, what: str) -> Iterator[str]:
    """The names of a path below a root; a leading slash means the root as well.

    :raises InvalidArgument: one of them is invalid (see :func:`component`), or there are too many.
    """
    if len(path) > _TOTAL_MAX:
        raise InvalidArgument(f"invalid {what} {path[:_SHOWN]!r}: longer than {_TOTAL_MAX} characters")
    for name in path.split("/"):
        if name not in ("", "."):
            yield component(name, f"name in {what} {path[:_SHOWN]!r}:")


def relative(path: str, what: str) -> str:
    """``path`` without redundant parts (``//``, ``/./``, slashes at its ends).

    :raises InvalidArgument: see :func:`components`.
    """
    return "/".join(components(path, what))
