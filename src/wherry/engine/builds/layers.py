"""Layers of images from results of steps: written only when an image needs them, and only once.

A plain (uncompressed) layer is not written at all: it can be made again from its files
(:mod:`wherry.images.packing`), so only its digest is computed. A layer is the difference between a step's
snapshot and the one below it. The snapshot is then renamed to the layer's chain id, so that a container can
start from it without unpacking. With ``rewrite-timestamp`` the layer has other times than the snapshot, and
the snapshot stays as it is.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any, Protocol

from wherry import threads
from wherry.engine.builds.cache import BuildCache
from wherry.errors import Internal, InvalidArgument, NotFound
from wherry.images.store import ImageStore
from wherry.model import digest as digests
from wherry.model import oci
from wherry.model.digest import Digest
from wherry.model.oci import Descriptor
from wherry.state.builds import LayerRow
from wherry.storage import diff
from wherry.storage.content import Writer
from wherry.storage.leases import Lease
from wherry.storage.snapshots import Snapshotter

PLAIN, GZIP, ZSTD = "uncompressed", "gzip", "zstd"
_TYPES = {PLAIN: oci.LAYER, GZIP: oci.LAYER_GZIP, ZSTD: oci.LAYER_ZSTD}
_LEVELS = {GZIP: (6, 0, 9), ZSTD: (3, 1, 22)}


@dataclass(frozen=True)
class Form:
    """How layers are written. ``level``: of the compression; ``epoch``: in seconds; later times in the layer
    are set to it.
    """

    compression: str = PLAIN
    level: int = 0
    epoch: int | None = None

    @property
    def is_remade(self) -> bool:
        """Whether the files of the layer give the blob again, so that it need not be stored."""
        return self == Form()

    @property
    def key(self) -> str:
        return f"{self.compression}:{self.level}:{'' if self.epoch is None else self.epoch}"


def form_of(compression: str, level: str, epoch: int | None) -> Form:
    """From an output's attributes. :raises InvalidArgument: an unknown compression or level."""
    compression = compression or PLAIN
    if compression == "estargz":
        raise InvalidArgument("compression estargz is not supported: use gzip, zstd or uncompressed")
    if compression not in _TYPES:
        raise InvalidArgument(f"unsupported layer compression type: {compression}")
    if compression == PLAIN:
        return Form(epoch=epoch)
    default, least, most = _LEVELS[compression]
    if level and not (level.isdecimal() and least <= int(level) <= most):
        raise InvalidArgument(f"invalid compression-level {level!r} for {compression}: {least} to {most}")
    return Form(compression, int(level) if level else default, epoch)


class _Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...

    def end(self) -> None: ...


class _Plain:
    def __init__(self, out: Writer) -> None:
        self.write = out.write

    def end(self) -> None:
        return


class _Compressed:
    def __init__(self, out: Writer, compressor: Any) -> None:
        self._out, self._compressor = out, compressor

    def write(self, data: bytes, /) -> None:
        if piece := self._compressor.compress(data):
            self._out.write(piece)

    def end(self) -> None:
        self._out.write(self._compressor.flush())


def _sink(out: Writer, form: Form) -> _Sink:
    if form.compression == GZIP:
        return _Compressed(out, zlib.compressobj(form.level, wbits=31))
    if form.compression == ZSTD:
        import zstandard

        return _Compressed(out, zstandard.ZstdCompressor(level=form.level).compressobj())
    return _Plain(out)


@dataclass(frozen=True)
class NewLayer:
    """One layer of the new image: its blob, its diff id, its snapshot."""

    blob: Descriptor
    diff_id: Digest
    chain_id: Digest


def _all(jobs: Sequence[Future[LayerRow]]) -> list[LayerRow]:
    """Wait for all of them, so that no work is left running; then raise the first failure."""
    for job in jobs:
        job.exception()
    return [job.result() for job in jobs]


class EarlyLayer:
    """The description of a step's layer, found out while the step's files are made durable and the next steps
    run: most results become images, which have plain layers.
    """

    def __init__(self, snapshotter: Snapshotter, key: str) -> None:
        """:param key: of a snapshot that nobody writes to any more; its name may change meanwhile."""
        self._wanted = True
        self._work = threads.disk.submit(self._describe, snapshotter, key)

    def _describe(self, snapshotter: Snapshotter, key: str) -> LayerRow:
        def skip(_change: diff.PathChange) -> bool:
            if not self._wanted:
                raise CancelledError
            return False

        written = diff.write_layer(snapshotter, key, diff.Nowhere(), skip=skip)
        return LayerRow(written.diff_id, written.diff_id, written.size, oci.LAYER)

    def result(self) -> LayerRow | None:
        """Waits for it. ``None``: it could not be found out, so whoever needs it does it anew."""
        try:
            return self._work.result()
        except (CancelledError, OSError, NotFound):
            return None

    def drop(self) -> None:
        """Nobody needs it; it ends soon. From any thread."""
        self._wanted = False
        self._work.cancel()


class Layers:
    """Safe to use from any thread."""

    def __init__(self, cache: BuildCache, images: ImageStore) -> None:
        self._cache, self._images = cache, images
        self._early: dict[str, EarlyLayer] = {}

    def begin(self, key: str) -> EarlyLayer:
        """Begin to describe the layer of a snapshot that is about to be committed."""
        return EarlyLayer(self._cache.snapshotter, key)

    def expect(self, snapshot: str, early: EarlyLayer) -> None:
        """It is the layer of ``snapshot``, until :meth:`forget`."""
        self._early[snapshot] = early

    def forget(self, snapshots: Iterable[str]) -> None:
        for snapshot in snapshots:
            if (early := self._early.pop(snapshot, None)) is not None:
                early.drop()

    def make(
        self, snapshots: Sequence[str], below: Digest | None, form: Form, lease: Lease
    ) -> list[NewLayer]:
        """Layers of snapshots, each on top of the one before it, the first on the chain ``below``. Blocks.

        :raises Unavailable: the disk is full.
        """
        known = dict(self._early) if form.is_remade else {}
        early = {one: known[one] for one in snapshots if one in known}
        jobs = [threads.disk.submit(self._written, s, form, lease) for s in snapshots if s not in early]
        others = iter(_all(jobs))
        written = [
            early[one].result() or self._written(one, form, lease) if one in early else next(others)
            for one in snapshots
        ]
        found: list[NewLayer] = []
        chain = below
        for snapshot, row in zip(snapshots, written, strict=True):
            chain = digests.chain_id(chain, row.diff_id)
            lease.keep_snapshot(chain)
            if form.epoch is None and snapshot != chain and not digests.is_digest(snapshot):
                self._cache.publish(snapshot, chain)
            self._cache.rows.put_layer(chain if form.epoch is None else Digest(snapshot), form.key, row)
            found.append(
                NewLayer(
                    Descriptor(media_type=row.media_type, digest=row.digest, size=row.size),
                    row.diff_id,
                    chain,
                )
            )
        return found

    def _written(self, snapshot: str, form: Form, lease: Lease) -> LayerRow:
        known = self._cache.rows.layer(Digest(snapshot), form.key)
        if known is not None and (form.is_remade or self._images.content.keep(known.digest, lease.id)):
            return known
        try:
            if form.is_remade:
                plain = diff.write_layer(self._cache.snapshotter, snapshot, diff.Nowhere())
                return LayerRow(plain.diff_id, plain.diff_id, plain.size, oci.LAYER)
            with self._images.content.ingest() as writer:
                sink = _sink(writer, form)
                written = diff.write_layer(
                    self._cache.snapshotter,
                    snapshot,
                    sink,
                    newest=None if form.epoch is None else form.epoch * 10**9,
                )
                sink.end()
                media_type = _TYPES[form.compression]
                size = writer.offset
                digest = writer.commit(media_type=media_type, lease=lease.id)
        except OSError as e:
            raise Internal(f"cannot write a layer: {e.strerror or e}") from e
        return LayerRow(written.diff_id, digest, size, media_type)
