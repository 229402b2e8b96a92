"""The header that describes a path in a container (API "Get information about files")."""

from __future__ import annotations

import base64

import msgspec

from wherry.wire.times import rfc3339

PATH_STAT = "X-Docker-Container-Path-Stat"


def path_stat(*, name: str, size: int, mode: int, mtime: int, target: str) -> str:
    """The header's value: base64 of JSON. ``mode`` in the bits of Go's FileMode, ``mtime`` in nanoseconds.

    Bytes of a name that are not UTF-8 become U+FFFD, as with Go's encoder.
    """
    body = {
        "name": _clean(name),
        "size": size,
        "mode": mode,
        "mtime": rfc3339(mtime),
        "linkTarget": _clean(target),
    }
    return base64.b64encode(msgspec.json.encode(body)).decode()


def _clean(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
