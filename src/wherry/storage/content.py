"""Blobs by digest.

    <root>/content/sha256/<hex>     a blob, whole and verified; its row in the database says it counts
    <root>/content/ingest/<id>      a blob on its way; <id> is the hex sha256 of the caller's ref

A blob is written to ``ingest``, synced, verified, renamed, and the directory synced; then its row is made. A
file without a row is nothing: it is swept at start, as are ingests nobody continued. Removing goes the
other way round: the row first, then the file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, Unavailable
from wherry.linux.files import sync_directory
from wherry.model import digest as digests
from wherry.model.digest import Digest
from wherry.state.content import BlobRow, Contents

STALE_INGEST = 7 * 24 * 3600
"""Seconds after which an ingest that nobody continued is swept."""

_COPY = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


class ContentStore:
    """The store. Safe to use from any thread."""

    def __init__(self, root: Path, repository: Contents) -> None:
        """:param root: the daemon's root; ``content`` is made below it and swept of leftovers."""
        self._blobs = root / "content" / "sha256"
        self._ingests = root / "content" / "ingest"
        self._rows = repository
        self._lock = threading.Lock()
        self._open: set[str] = set()
        for directory in (self._blobs, self._ingests):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sweep()

    def _sweep(self) -> None:
        known = {digests.hex_of(row.digest) for row in self._rows.all()}
        present = set(os.listdir(self._blobs))
        for name in present - known:
            (self._blobs / name).unlink()
        for name in known - present:
            self._rows.delete(Digest(f"sha256:{name}"))
        oldest = time.time() - STALE_INGEST
        for ingest in self._ingests.iterdir():
            if ingest.stat().st_mtime < oldest or ingest.name.startswith("once-"):
                ingest.unlink()

    def has(self, digest: Digest) -> bool:
        return self._rows.get(digest) is not None

    def keep(self, digest: Digest, lease: str | None) -> bool:
        """Whether the blob is here; if so it stays as long as the lease, whatever the collector does."""
        return self.has(digest) if lease is None else self._rows.lease(digest, lease)

    def info(self, digest: Digest) -> BlobRow:
        """:raises NotFound: no such blob."""
        row = self._rows.get(digest)
        if row is None:
            raise NotFound(f"content {digest} not found")
        return row

    def size(self, digest: Digest) -> int:
        """Bytes. :raises NotFound: no such blob."""
        return self.info(digest).size

    def path(self, digest: Digest) -> Path:
        """Where the blob is (or would be); read-only for everybody but this store."""
        return self._blobs / digests.hex_of(digest)

    def open(self, digest: Digest) -> BinaryIO:
        """:raises NotFound: no such blob."""
        self.info(digest)
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError as e:
            raise NotFound(f"content {digest} not found") from e

    def read(self, digest: Digest, *, limit: int) -> bytes:
        """A whole small blob.

        :param limit: bytes; a larger blob raises :class:`InvalidArgument`. :raises NotFound: no such blob.
        """
        size = self.size(digest)
        if size > limit:
            raise InvalidArgument(f"cannot read content {digest}: {size} bytes are more than {limit}")
        with self.open(digest) as file:
            return file.read()

    def put(
        self, data: bytes, media_type: str = "", *, expected: Digest | None = None, lease: str | None = None
    ) -> Digest:
        """Store a small blob that is in memory. :raises InvalidArgument: it is not ``expected``."""
        digest = digests.of(data)
        if expected is not None and digest != expected:
            raise InvalidArgument(f"cannot store content: its digest is {digest}, not {expected}")
        if self.keep(digest, lease):
            return digest
        with self.ingest() as writer:
            writer.write(data)
            return writer.commit(expected, media_type=media_type, lease=lease)

    def ingest(self, ref: str | None = None) -> Writer:
        """Start writing a blob, or go on where an earlier writer with the same ``ref`` stopped.

        Without a ``ref`` the ingest cannot be resumed and leaves nothing behind unless committed.

        :raises Conflict: ``ref`` is being written at this moment.
        """
        name = hashlib.sha256(ref.encode()).hexdigest() if ref else f"once-{secrets.token_hex(16)}"
        with self._lock:
            if name in self._open:
                raise Conflict(f"cannot write {ref}: it is being written already")
            self._open.add(name)
        try:
            return Writer(self, self._ingests / name, keep=ref is not None)
        except BaseException:
            self._release(name)
            raise

    def _release(self, name: str) -> None:
        with self._lock:
            self._open.discard(name)

    def _publish(self, path: Path, digest: Digest, size: int, media_type: str, lease: str | None) -> None:
        with self._lock:
            path.rename(self.path(digest))
            sync_directory(self._blobs)
            self._rows.insert(digest, size, media_type, lease=lease)

    def delete(self, digest: Digest) -> None:
        """:raises NotFound: no such blob."""
        if not self._rows.delete(digest):
            raise NotFound(f"content {digest} not found")
        self.remove_files([digest])

    def discard(self, digest: Digest) -> bool:
        """Remove a blob that nobody is working with; whether it went."""
        gone = self._rows.delete_unleased(digest)
        if gone:
            self.remove_files([digest])
        return gone

    def problem(self, digest: Digest) -> str:
        """What is wrong with a blob that has a row, in words; empty for nothing. Reads all of it."""
        hashed, size = hashlib.sha256(), 0
        try:
            with self.path(digest).open("rb", buffering=0) as file:
                while piece := file.read(_COPY):
                    hashed.update(piece)
                    size += len(piece)
        except FileNotFoundError:
            return "its file is gone"
        except OSError as e:
            return f"its file cannot be read: {e.strerror}"
        row = self._rows.get(digest)
        if row is not None and size != row.size:
            return f"its file has {size} bytes, not {row.size}"
        found = f"sha256:{hashed.hexdigest()}"
        return "" if found == digest else f"its file has the digest {found}"

    def strays(self, *, remove: bool) -> list[Path]:
        """Files among the blobs that no row knows."""
        found = []
        with self._lock:
            known = {digests.hex_of(row.digest) for row in self._rows.all()}
            for name in sorted(set(os.listdir(self._blobs)) - known):
                found.append(self._blobs / name)
                if remove:
                    (self._blobs / name).unlink()
        return found

    def remove_files(self, forgotten: Iterable[Digest]) -> int:
        """Remove the files of blobs whose rows are gone, unless one came back; return the bytes freed."""
        freed = 0
        for digest in forgotten:
            with self._lock:
                if self._rows.get(digest) is None:
                    path = self.path(digest)
                    try:
                        freed += path.stat().st_size
                        path.unlink()
                    except FileNotFoundError:
                        continue
        return freed

    def walk(self) -> Iterator[BlobRow]:
        """Every blob, by digest."""
        yield from self._rows.all()


class Writer:
    """One blob on its way. Leaving the ``with`` closes it: a blob with a ref can be continued later, one
    without is gone unless committed."""

    def __init__(self, store: ContentStore, path: Path, *, keep: bool) -> None:
        self._store = store
        self._path = path
        self._keep = keep
        self._hash = hashlib.sha256()
        self._committed = False
        self._file = path.open("r+b" if path.exists() else "x+b", buffering=0)
        while piece := self._file.read(_COPY):
            self._hash.update(piece)
        self.offset = self._file.tell()

    def __enter__(self) -> Writer:
        return self

    def write(self, data: bytes | memoryview) -> None:
        """Append. :raises Unavailable: the disk is full."""
        self._hash.update(data)
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as e:
            if e.errno in _FULL:
                raise Unavailable("cannot store content: no space left on device") from e
            raise Internal(f"cannot store content: {e.strerror}") from e
        self.offset += len(data)

    @property
    def digest(self) -> Digest:
        """Of what was written so far."""
        return Digest("sha256:" + self._hash.hexdigest())

    def reopen(self) -> int:
        """A descriptor of its own for what was written so far, to read from while it is being committed."""
        return os.open(f"/proc/self/fd/{self._file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)

    def restart(self) -> None:
        """Throw away what was written, to start from the first byte."""
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self.offset = 0

    def commit(
        self,
        expected_digest: Digest | None = None,
        expected_size: int | None = None,
        *,
        media_type: str = "",
        lease: str | None = None,
    ) -> Digest:
        """Verify, make durable, and publish. What fails verification is thrown away.

        :raises InvalidArgument: not the expected size or digest. :raises Unavailable: the disk is full.
        """
        digest = self.digest
        problem = None
        if expected_size is not None and self.offset != expected_size:
            problem = f"{self.offset} bytes came, not {expected_size}"
        elif expected_digest is not None and digest != expected_digest:
            problem = f"its digest is {digest}, not {expected_digest}"
        if problem is not None:
            self.abort()
            raise InvalidArgument(f"cannot store content: {problem}")
        try:
            os.fsync(self._file.fileno())
        except OSError as e:
            self.abort()
            if e.errno in _FULL:
                raise Unavailable("cannot store content: no space left on device") from e
            raise Internal(f"cannot store content: {e.strerror}") from e
        self._store._publish(self._path, digest, self.offset, media_type, lease)
        self._committed = True
        self.close()
        return digest

    def abort(self) -> None:
        """Throw the blob away."""
        self._keep = False
        self.close()

    def close(self) -> None:
        if self._file.closed:
            return
        self._file.close()
        if not self._keep and not self._committed:
            self._path.unlink(missing_ok=True)
        self._store._release(self._path.name)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
