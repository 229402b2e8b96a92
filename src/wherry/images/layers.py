"""Unpack layers into snapshots: all layers of an image in parallel, each only once for all callers.

With a driver that can set a layer's parent later (``rebase``), layers are unpacked in parallel and committed
lowest first; otherwise one after the other. Callers that need the same chain share the work.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from wherry import threads
from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, WherryError
from wherry.model import digest as digests
from wherry.model.digest import Digest
from wherry.model.mount import Mount
from wherry.storage.confined.unpack import NeedsParent, Unpacked, Unpacker
from wherry.storage.content import ContentStore
from wherry.storage.layerformat import MERGE, OVERLAY
from wherry.storage.snapshots import UNPACK_PREFIX, Snapshotter, SnapshotUsage

_OTHERS_FAILURES = 3


@dataclass(frozen=True)
class PackedLayer:
    """A compressed blob and the diff id that it must unpack to."""

    digest: Digest
    diff_id: Digest


@dataclass(frozen=True)
class PreparedLayer:
    """A layer that is unpacked but not committed: ``key`` is an active snapshot without a parent."""

    key: str
    unpacked: Unpacked

    @property
    def usage(self) -> SnapshotUsage:
        return SnapshotUsage(self.unpacked.size, self.unpacked.inodes)


class _OthersFailed(Internal):
    """Another caller was unpacking a layer that we wait for, and did not finish."""


class Coming(Future[PreparedLayer]):
    """A layer that will be prepared once its blob has arrived. Until then it can be cancelled."""


Ready = Callable[[int], Future[PreparedLayer] | None]


class LayerStore:
    """Safe to use from any thread; waiting callers wait in their own thread."""

    def __init__(self, content: ContentStore, snapshotter: Snapshotter, unpacker: Unpacker) -> None:
        self._content = content
        self.snapshotter = snapshotter
        self._unpacker = unpacker
        self._lock = threading.Lock()
        self._running: dict[Digest, Future[None]] = {}

    def has(self, chain_id: Digest) -> bool:
        """Whether the layer at the top of a chain is unpacked and its files exist."""
        return self.snapshotter.has_files(chain_id)

    def prepare(self, digest: Digest, blob: int | None = None) -> Future[PreparedLayer]:
        """Start to unpack a layer before its chain is known (``rebase`` drivers only).

        The caller commits it through :meth:`ensure` or gives it to :meth:`discard`.

        :param blob: a descriptor to read it from if it is not in the store yet; it is closed here.
        """

        def work() -> PreparedLayer:
            try:
                return self._prepare(digest, None, blob)
            finally:
                if blob is not None:
                    os.close(blob)

        return threads.unpack.submit(work)

    def adopt(self, prepared: PreparedLayer) -> None:
        """Commit a prepared layer as the lowest of its chain; if that exists already, it is kept."""
        self._publish(prepared.unpacked.diff_id, prepared, None)

    def discard(self, prepared: Future[PreparedLayer]) -> None:
        """Wait for a prepared layer that is not needed, and remove it."""
        if isinstance(prepared, Coming) and prepared.cancel():
            return
        try:
            self.snapshotter.remove(prepared.result().key)
        except (WherryError, OSError):
            return  # it failed, and cleaned up after itself

    def ensure(
        self,
        layers: Sequence[PackedLayer],
        ready: Ready = lambda position: None,
        *,
        done: Callable[[int], None] = lambda position: None,
    ) -> Digest | None:
        """Unpack and commit all of a chain; returns its chain id (``None`` without layers).

        :param ready: called for each layer that this call has to unpack (``rebase`` drivers only): returns
            one that is or will be prepared, else None.
        :param done: called when a layer is there, lowest first.
        :raises InvalidArgument: a layer is hostile or broken, or its diff id is not the configuration's.
        :raises NotFound: a blob is missing. :raises Unavailable: the disk is full.
        """
        chain: list[Digest] = []
        for layer in layers:
            chain.append(digests.chain_id(chain[-1] if chain else None, layer.diff_id))
        if not chain or self.snapshotter.has_files(chain[-1], parents=True):
            for position in range(len(chain)):
                done(position)
            return chain[-1] if chain else None
        for _ in range(_OTHERS_FAILURES):
            try:
                return self._ensure(layers, chain, ready, done)
            except _OthersFailed:
                continue  # they stopped, or had a broken copy: now it is this caller's work
        return self._ensure(layers, chain, ready, done)

    def _ensure(
        self, layers: Sequence[PackedLayer], chain: list[Digest], ready: Ready, done: Callable[[int], None]
    ) -> Digest:
        mine, theirs = self._claim(chain)
        jobs: dict[Digest, Future[PreparedLayer]] = {}
        try:
            if self.snapshotter.rebase:
                for position, (layer, name) in enumerate(zip(layers, chain, strict=True)):
                    if name in mine:
                        jobs[name] = ready(position) or threads.unpack.submit(
                            self._prepare, layer.digest, layer.diff_id, None
                        )
            for position, (layer, name) in enumerate(zip(layers, chain, strict=True)):
                if name in mine:
                    self._commit(layer, name, chain[position - 1] if position else None, jobs.pop(name, None))
                    self._settle(name, None)
                elif name in theirs and (error := theirs[name].exception()) is not None:
                    raise _OthersFailed(str(error)) from error
                done(position)
        except BaseException as e:
            for name in mine:
                self._settle(name, e)
            for job in jobs.values():
                self.discard(job)
            raise
        return chain[-1]

    def _claim(self, chain: Sequence[Digest]) -> tuple[set[Digest], dict[Digest, Future[None]]]:
        """The missing layers that this caller must unpack, and those that another caller is unpacking."""
        mine: set[Digest] = set()
        theirs: dict[Digest, Future[None]] = {}
        with self._lock:
            for name in chain:
                if name in mine or name in theirs:
                    continue
                if name in self._running:
                    theirs[name] = self._running[name]
                elif not self.has(name):
                    self._running[name] = Future()
                    mine.add(name)
        return mine, theirs

    def _settle(self, name: Digest, error: BaseException | None) -> None:
        with self._lock:
            future = self._running.pop(name, None)
        if future is None:
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    def _commit(
        self, layer: PackedLayer, name: Digest, parent: Digest | None, job: Future[PreparedLayer] | None
    ) -> None:
        if job is None:
            prepared = self._prepare_on(layer, parent)
            rebase = None
        else:
            try:
                prepared, rebase = job.result(), parent
                if prepared.unpacked.diff_id != layer.diff_id:
                    self.snapshotter.remove(prepared.key)
                    raise InvalidArgument(
                        f"cannot unpack layer {layer.digest}: its content is {prepared.unpacked.diff_id}, "
                        f"not {layer.diff_id}"
                    )
            except NeedsParent:
                if parent is None:
                    raise
                prepared, rebase = self._prepare_on(layer, parent), None
        self._publish(name, prepared, rebase)

    def _publish(self, name: Digest, prepared: PreparedLayer, parent: Digest | None) -> None:
        try:
            self.snapshotter.commit(
                name,
                prepared.key,
                parent=parent,
                usage=prepared.usage,
                synced=True,
                unnamed=prepared.unpacked.unnamed,
            )
        except Conflict:
            # It was made in another way meanwhile; or its files were lost, and these replace them.
            if not self.snapshotter.replace_lost(name, prepared.key):
                self.snapshotter.remove(prepared.key)
        except BaseException:
            self.snapshotter.remove(prepared.key)
            raise

    def _prepare(self, digest: Digest, expected: Digest | None, blob: int | None) -> PreparedLayer:
        """Unpack a layer on its own."""
        return self._unpack(digest, expected, blob, None, merge=not self.snapshotter.rebase)

    def _prepare_on(self, layer: PackedLayer, parent: Digest | None) -> PreparedLayer:
        """Unpack a layer over its parents' files."""
        return self._unpack(layer.digest, layer.diff_id, None, parent, merge=True)

    def _unpack(
        self, digest: Digest, expected: Digest | None, blob: int | None, parent: Digest | None, *, merge: bool
    ) -> PreparedLayer:
        key = UNPACK_PREFIX + secrets.token_hex(12)
        (mount,) = self.snapshotter.prepare(key, parent)
        try:
            unpacked = self._unpacker.unpack(
                self._content.path(digest) if blob is None else blob,
                mount,
                whiteouts=MERGE if merge else OVERLAY,
                digest=digest,
                expected=expected,
            )
            self.snapshotter.sync()  # while other layers are being unpacked
        except BaseException as e:
            self.snapshotter.remove(key)
            if isinstance(e, FileNotFoundError):
                raise NotFound(f"cannot unpack layer {digest}: it is not here") from e
            raise
        return PreparedLayer(key, unpacked)

    def merge(self, digest: Digest, diff_id: Digest, mount: Mount) -> None:
        """Unpack a layer into a writable snapshot, as one more layer of it (squash).

        :raises InvalidArgument: see :meth:`ensure`.
        """
        path = self._content.path(digest)
        self._unpacker.unpack(path, mount, whiteouts=MERGE, digest=digest, expected=diff_id)

    def merge_open(self, blob: int, digest: Digest, mount: Mount) -> None:
        """As :meth:`merge`, for an open plain archive that is not in the store.

        :raises InvalidArgument: see :meth:`ensure`.
        """
        self._unpacker.unpack(blob, mount, whiteouts=MERGE, digest=digest)

    def close(self) -> None:
        """Wait for running work, a minute at most."""
        threads.unpack.wait_until_quiet(time.monotonic() + 60)
