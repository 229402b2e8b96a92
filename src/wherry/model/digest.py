"""Content digests: ``algorithm:hex`` (OCI image-spec, descriptor.md, "Digests").

Only sha256 is supported; sha512 is a registered algorithm, so its error names it.
"""

from __future__ import annotations

import hashlib
import re
from typing import NewType

from wherry.errors import InvalidArgument

Digest = NewType("Digest", str)

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


def parse(text: str) -> Digest:
    """Check and return a digest.

    :raises InvalidArgument: not ``sha256:`` and 64 lower-case hex digits.
    """
    if _SHA256.fullmatch(text):
        return Digest(text)
    algorithm = text.partition(":")[0]
    if algorithm == "sha512":
        raise InvalidArgument(f"unsupported digest algorithm sha512: {text[:140]!r}")
    raise InvalidArgument(f"invalid digest: {text[:140]!r}")


def is_digest(text: str) -> bool:
    return _SHA256.fullmatch(text) is not None


def of(data: bytes) -> Digest:
    """The sha256 digest of ``data``."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def hex_of(digest: Digest) -> str:
    """The hex part, safe as a file name because :func:`parse` checked it."""
    return digest[7:]


def chain_id(parent: Digest | None, diff_id: Digest) -> Digest:
    """ChainID of a layer on top of ``parent`` (OCI image-spec, config.md, "Layer ChainID")."""
    if parent is None:
        return diff_id
    return of(f"{parent} {diff_id}".encode())
