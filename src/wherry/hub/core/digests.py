"""Digests of stored content: sha256 and sha512 (OCI image-spec, descriptor.md, "Digests").

The engine's :mod:`wherry.model.digest` only knows sha256; a registry must accept both.
"""

from __future__ import annotations

import hashlib
import re
from typing import Protocol

from wherry.hub.core.refusals import Refusal

CANONICAL = "sha256"
_KNOWN = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
ALGORITHMS = frozenset({"sha256", "sha512"})


class Hash(Protocol):
    """A hash that is being computed."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


def check(text: str) -> str:
    """Return ``text`` if it is a digest with a supported algorithm.

    :raises Refusal: ``DIGEST_INVALID``.
    """
    if _KNOWN.fullmatch(text) is None:
        raise Refusal("DIGEST_INVALID", f"invalid digest: {text[:140]!r}", detail={"digest": text[:140]})
    return text


def is_digest(text: str) -> bool:
    return _KNOWN.fullmatch(text) is not None


def algorithm_of(digest: str) -> str:
    return digest.partition(":")[0]


def check_algorithm(name: str) -> str:
    """:raises Refusal: ``DIGEST_INVALID``: an unsupported algorithm."""
    if name not in ALGORITHMS:
        raise Refusal("DIGEST_INVALID", f"unsupported digest algorithm: {name[:40]!r}")
    return name


def start(algorithm: str) -> Hash:
    return hashlib.sha512() if algorithm == "sha512" else hashlib.sha256()


def of(data: bytes, algorithm: str = CANONICAL) -> str:
    digest = start(algorithm)
    digest.update(data)
    return f"{algorithm}:{digest.hexdigest()}"
