"""Imports everything that a child may need later: for the fork server, whose jobs have it then."""

from __future__ import annotations

import bz2  # noqa: F401
import hashlib
import lzma  # noqa: F401

import isal.isal_zlib  # noqa: F401
import zstandard  # noqa: F401

from wherry.model import patterns

patterns.load()
hashlib.sha256()


def main(_arguments: list[str]) -> None:
    """It is no job of its own."""
    raise NotImplementedError
