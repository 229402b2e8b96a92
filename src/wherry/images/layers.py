"""Layers into snapshots: every layer of an image at once, each only once whoever asks.

With a driver that can give a layer its parent later (``rebase``), all layers unpack side by side and are
committed lowest first; otherwise one after the other. Callers that need the same chain share the work.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, WherryError
from wherry.model import digest as digests
from wherry.model.digest import Digest
from wherry.model.mount import Mount
from wherry.storage.apply import MERGE, OVERLAY
from wherry.storage.content import ContentStore
from wherry.storage.snapshots import UNPACK_PREFIX, Snapshotter, Usage
from wherry.storage.unpack import NeedsParent, Unpacked, Unpacker

_OTHERS_FAILURES = 3


@dataclass(frozen=True)
class Layer:
    """A compressed blob and what it must unpack to."""

    digest: Digest
    diff_id: Digest


@dataclass(frozen=True)
class Prepared:
    """A layer that is unpacked but not committed: ``key`` is an active snapshot without a parent."""

    key: str
    unpacked: Unpacked

    @property
    def usage(self) -> Usage:
        return Usage(self.unpacked.size, self.unpacked.inodes)


class _OthersFailed(Internal):
    """Whoever was unpacking a layer that we wait for did not get to its end."""


class Coming(Future[Prepared]):
    """A layer that will be prepared once its blob has come. It may be given up until then (``cancel``)."""


Ready = Callable[[int], Future[Prepared] | None]


class LayerStore:
    """Safe to use from any thread; waiting callers wait in their own thread."""

    def __init__(self, content: ContentStore, snapshotter: Snapshotter, unpacker: Unpacker) -> None:
        self._content = content
        self.snapshotter = snapshotter
        self._unpacker = unpacker
        self._pool = ThreadPoolExecutor(unpacker.parallel, thread_name_prefix="unpack")
        self._lock = threading.Lock()
        self._running: dict[Digest, Future[None]] = {}

    def has(self, chain_id: Digest) -> bool:
        """Whether the chain is unpacked."""
        try:
            self.snapshotter.stat(chain_id)
        except NotFound:
            return False
        return True

    def prepare(self, digest: Digest, blob: int | None = None) -> Future[Prepared]:
        """Start unpacking a layer before anybody knows where it belongs (``rebase`` drivers only).

        The caller commits it through :meth:`ensure` or gives it to :meth:`discard`.

        :param blob: a descriptor to read it from while it is not in the store yet; closed here.
        """

        def work() -> Prepared:
            try:
                return self._prepare(digest, None, blob)
            finally:
                if blob is not None:
                    os.close(blob)

        return self._pool.submit(work)

    def adopt(self, prepared: Prepared) -> None:
        """Commit a prepared layer as the lowest of its chain; one that is there already is kept."""
        self._publish(prepared.unpacked.diff_id, prepared, None)

    def discard(self, prepared: Future[Prepared]) -> None:
        """Wait for a prepared layer nobody wants, and remove it."""
        if isinstance(prepared, Coming) and prepared.cancel():
            return
        try:
            self.snapshotter.remove(prepared.result().key)
        except (WherryError, OSError):
            return  # it failed, and cleaned up after itself

    def ensure(
        self,
        layers: Sequence[Layer],
        ready: Ready = lambda position: None,
        *,
        done: Callable[[int], None] = lambda position: None,
    ) -> Digest | None:
        """Have all of a chain unpacked and committed; return its ChainID (``None`` without layers).

        :param ready: asked for each layer that this call has to unpack (``rebase`` drivers only): one that
            is prepared already or will be, else None.
        :param done: called when a layer is there, lowest first.
        :raises InvalidArgument: a layer is hostile, broken, or not what the configuration promises.
        :raises NotFound: a blob is missing. :raises Unavailable: the disk is full.
        """
        chain: list[Digest] = []
        for layer in layers:
            chain.append(digests.chain_id(chain[-1] if chain else None, layer.diff_id))
        if not chain or self.has(chain[-1]):
            for position in range(len(chain)):
                done(position)
            return chain[-1] if chain else None
        for _ in range(_OTHERS_FAILURES):
            try:
                return self._ensure(layers, chain, ready, done)
            except _OthersFailed:
                continue  # they left, or had a broken copy: what they had begun is ours now
        return self._ensure(layers, chain, ready, done)

    def _ensure(
        self, layers: Sequence[Layer], chain: list[Digest], ready: Ready, done: Callable[[int], None]
    ) -> Digest:
        mine, theirs = self._claim(chain)
        jobs: dict[Digest, Future[Prepared]] = {}
        try:
            if self.snapshotter.rebase:
                for position, (layer, name) in enumerate(zip(layers, chain, strict=True)):
                    if name in mine:
                        jobs[name] = ready(position) or self._pool.submit(
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
        """Which missing layers are this caller's to unpack, and which another caller is at."""
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
        self, layer: Layer, name: Digest, parent: Digest | None, job: Future[Prepared] | None
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

    def _publish(self, name: Digest, prepared: Prepared, parent: Digest | None) -> None:
        try:
            self.snapshotter.commit(name, prepared.key, parent=parent, usage=prepared.usage)
        except Conflict:
            self.snapshotter.remove(prepared.key)  # it came by another way meanwhile
        except BaseException:
            self.snapshotter.remove(prepared.key)
            raise

    def _prepare(self, digest: Digest, expected: Digest | None, blob: int | None) -> Prepared:
        """Unpack a layer on its own."""
        return self._unpack(digest, expected, blob, None, merge=not self.snapshotter.rebase)

    def _prepare_on(self, layer: Layer, parent: Digest | None) -> Prepared:
        """Unpack a layer over its parents' files."""
        return self._unpack(layer.digest, layer.diff_id, None, parent, merge=True)

    def _unpack(
        self, digest: Digest, expected: Digest | None, blob: int | None, parent: Digest | None, *, merge: bool
    ) -> Prepared:
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
        except BaseException as e:
            self.snapshotter.remove(key)
            if isinstance(e, FileNotFoundError):
                raise NotFound(f"cannot unpack layer {digest}: it is not here") from e
            raise
        return Prepared(key, unpacked)

    def merge(self, digest: Digest, diff_id: Digest, mount: Mount) -> None:
        """Unpack a layer onto a writable snapshot's files, as one more of them (squash).

        :raises InvalidArgument: see :meth:`ensure`.
        """
        path = self._content.path(digest)
        self._unpacker.unpack(path, mount, whiteouts=MERGE, digest=digest, expected=diff_id)

    def close(self) -> None:
        """Wait for what is under way."""
        self._pool.shutdown(wait=True)
