"""The differences between two images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wherry.model.digest import Digest


@dataclass(frozen=True)
class LayerSize:
    """``size`` in bytes, unpacked."""

    diff_id: Digest
    size: int


@dataclass(frozen=True)
class FileChange:
    """``kind`` is ``added``, ``removed`` or ``changed``; sizes in bytes, 0 if it is not a regular file."""

    path: str
    kind: str
    before: int
    after: int


@dataclass(frozen=True)
class PackageChange:
    """Versions of a package; None if it is not installed."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class ValueChange:
    """A setting of the configuration; None if it is not set."""

    key: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Comparison:
    """``shared``: the layers that both begin with, lowest first; only one image has the others."""

    shared: Sequence[LayerSize]
    only_before: Sequence[LayerSize]
    only_after: Sequence[LayerSize]
    configuration: Sequence[ValueChange]
    packages: Sequence[PackageChange]
    files: Sequence[FileChange]
