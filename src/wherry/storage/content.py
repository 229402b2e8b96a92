"""Blobs by digest.

    <root>/content/sha256/<hex>     a blob, whole and verified; its row in the database says it counts
    <root>/content/ingest/<id>      a blob on its way; <id> is the hex sha256 of the caller's ref
    <root>/content/going/<id>       the digests of blobs whose rows are being deleted

A blob is written to ``ingest``, synced, verified and linked to its place, and the directory is synced. Then
its row is inserted, and the name in ``ingest`` is removed. Removal is the reverse: first a list of the
digests is written to ``going``, then the row is deleted, then the file. So a file without a row is a leftover
if it still has a name in ``ingest`` or is on a list. Leftovers are removed at the start, and so are ingests
that nobody continued. Any other file without a row has lost its row: it is taken up again.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, Unavailable
from wherry.linux.files import sync_directory, write_atomic
from wherry.linux.lostfound import LostFound
from wherry.model import digest as digests
from wherry.model.digest import Digest
from wherry.state.content import BlobRow, Contents

STALE_INGEST = 7 * 24 * 3600
"""Seconds after which an abandoned ingest is swept."""

log = logging.getLogger(__name__)
_COPY = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


class ContentStore:
    """The store. Safe to use from any thread."""

    def __init__(self, root: Path, repository: Contents) -> None:
        """:param root: the daemon's root; ``content`` is made below it and swept of leftovers."""
        self._blobs = root / "content" / "sha256"
        self._ingests = root / "content" / "ingest"
        self._going = root / "content" / "going"
        self._lost = LostFound(root)
        self._rows = repository
        self._lock = threading.Lock()
        self._open: set[str] = set()
        for directory in (self._blobs, self._ingests, self._going):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.taken_up = self._sweep()
        """Blobs that had no row when the daemon started, and have got one since."""

    def _sweep(self) -> list[Digest]:
        known = {digests.hex_of(row.digest) for row in self._rows.all()}
        present = set(os.listdir(self._blobs))
        for name in known - present:
            self._rows.delete(Digest(f"sha256:{name}"))
        unknown = present - known
        leftovers = unknown & self._half_removed()
        for name, ingest in self._half_published().items():
            # The file has two names: a writer that continued the ingest would write into the blob.
            if name in known:
                ingest.unlink()
            else:
                leftovers.add(name)
        for name in leftovers:
            (self._blobs / name).unlink()
        for entry in self._going.iterdir():
            entry.unlink()
        oldest = time.time() - STALE_INGEST
        for ingest in self._ingests.iterdir():
            if ingest.stat().st_mtime < oldest or ingest.name.startswith("once-"):
                ingest.unlink()
        return self._take_up(sorted(unknown - leftovers), verify=False)

    def _half_published(self) -> dict[str, Path]:
        """Blobs that also have a name among the ingests -> that name."""
        statuses = ((entry, entry.stat()) for entry in self._ingests.iterdir())
        linked = {(status.st_dev, status.st_ino): entry for entry, status in statuses if status.st_nlink > 1}
        if not linked:
            return {}
        blobs = ((entry.name, entry.stat()) for entry in self._blobs.iterdir())
        places = {name: linked.get((status.st_dev, status.st_ino)) for name, status in blobs}
        return {name: ingest for name, ingest in places.items() if ingest is not None}

    def _half_removed(self) -> set[str]:
        found: set[str] = set()
        for entry in self._going.iterdir():
            with suppress(FileNotFoundError):  # that removal was completed
                found |= set(entry.read_text().split())
        return found

    def _take_up(self, names: Iterable[str], *, verify: bool) -> list[Digest]:
        """Make rows for blobs without one; files that are not valid blobs are set aside.

        :param verify: check their content. They were complete when they got their names.
        """
        found = []
        for name in names:
            path = self._blobs / name
            digest = Digest(f"sha256:{name}")
            if not digests.is_digest(digest) or not path.is_file() or (verify and self.problem(digest)):
                log.warning("%s", self._lost.set_aside(path, "blob", name, "it is not what its name says"))
                continue
            self._rows.insert(digest, path.stat().st_size, "")
            log.info("added a row for blob %s, which had none", digest[:19])
            found.append(digest)
        return found

    def has(self, digest: Digest) -> bool:
        """Whether a blob is here, with its full size."""
        row = self._rows.get(digest)
        return row is not None and self._has_file(row)

    @property
    def generation(self) -> int:
        """See :attr:`wherry.state.content.Contents.generation`."""
        return self._rows.generation

    def knows(self, digest: Digest) -> bool:
        """Whether there is a row; the file is not checked."""
        return self._rows.get(digest) is not None

    def _has_file(self, row: BlobRow) -> bool:
        try:
            return self.path(row.digest).stat().st_size == row.size
        except FileNotFoundError:
            return False

    def keep(self, digest: Digest, lease: str | None) -> bool:
        """Whether the blob is here. If so, the lease protects it from the collector.

        If the disk has lost its file, the row is deleted too, so that the blob can be stored again.
        """
        if lease is not None and not self._rows.lease(digest, lease):
            return False
        row = self._rows.get(digest)
        if row is None or self._has_file(row):
            return row is not None
        with self._lock:
            if not self._has_file(row):
                self._rows.delete(digest)
        return False

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
        """The path of the blob, whether it exists or not; only this store may write there."""
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

        :param limit: bytes; a larger blob raises :class:`InvalidArgument`.
        :raises NotFound: no such blob.
            A damaged blob also raises it: it is set aside, so that a pull or load can store it again.
        """
        size = self.size(digest)
        if size > limit:
            raise InvalidArgument(f"cannot read content {digest}: {size} bytes are more than {limit}")
        with self.open(digest) as file:
            data = file.read()
        if digests.of(data) != digest:
            with self._lock:
                line = self._lost.set_aside(self.path(digest), "blob", digest, "it is damaged")
            log.warning("%s", line)
            raise NotFound(f"content {digest} not found: it was damaged, and is set aside")
        return data

    def put(
        self, data: bytes, media_type: str = "", *, expected: Digest | None = None, lease: str | None = None
    ) -> Digest:
        """Store a small blob from memory. :raises InvalidArgument: its digest is not ``expected``."""
        digest = digests.of(data)
        if expected is not None and digest != expected:
            raise InvalidArgument(f"cannot store content: its digest is {digest}, not {expected}")
        if self.keep(digest, lease):
            return digest
        with self.ingest() as writer:
            writer.write(data)
            return writer.commit(expected, media_type=media_type, lease=lease)

    def ingest(self, ref: str | None = None) -> Writer:
        """Start writing a blob, or continue where an earlier writer with the same ``ref`` stopped.

        Without a ``ref`` the ingest cannot be resumed and leaves nothing behind unless committed.

        :raises Conflict: another writer uses ``ref`` now.
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
            try:
                os.link(path, self.path(digest))
            except OSError:  # a file of that name without a row; or a file system without links
                path.rename(self.path(digest))
            sync_directory(self._blobs)
            self._rows.insert(digest, size, media_type, lease=lease)
            path.unlink(missing_ok=True)

    def delete(self, digest: Digest) -> None:
        """:raises NotFound: no such blob."""
        with self.going([digest]):
            if not self._rows.delete(digest):
                raise NotFound(f"content {digest} not found")
            self.remove_files([digest])

    def discard(self, digest: Digest) -> bool:
        """Remove a blob that is not in use; returns whether it was removed."""
        with self.going([digest]):
            gone = self._rows.delete_unleased(digest)
            if gone:
                self.remove_files([digest])
        return gone

    def set_aside(self, digest: Digest, why: str) -> str:
        """Delete a damaged blob's row and move its file to lost+found; returns a line that says so.

        :raises NotFound: no such blob.
        """
        if not self._rows.delete(digest):
            raise NotFound(f"content {digest} not found")
        with self._lock:
            if not self.path(digest).exists():
                return f"forgot the blob {digest}: {why}"
            return self._lost.set_aside(self.path(digest), "blob", digest, why)

    def forget_set_aside(self, digest: Digest) -> None:
        """Delete the set-aside files of a blob, because it was stored again."""
        for one in self._lost.all():
            if one.kind == "blob" and one.name == digest:
                self._lost.forget(one)

    @contextmanager
    def going(self, blobs: Iterable[Digest]) -> Iterator[None]:
        """Inside this block the rows of these blobs are deleted, and then their files. If the daemon is
        killed in it, the next start removes the files whose rows are gone."""
        path = self._going / secrets.token_hex(8)
        names = "\n".join(digests.hex_of(digest) for digest in blobs)
        if names:
            with suppress(OSError):  # no room: then files of a killed daemon will be taken up
                write_atomic(path, names.encode(), durable=False)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def problem(self, digest: Digest) -> str:
        """What is wrong with a blob that has a row, as text; empty if it is intact. Reads all of it."""
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

    def unreferenced(self) -> list[Digest]:
        """Blobs that no image and no lease refers to."""
        return self._rows.unreferenced()

    def strays(self, *, take_up: bool) -> list[Path]:
        """Files among the blobs that have no row.

        :param take_up: make their rows again, and set aside files whose content does not match their name.
        """
        with self._lock:
            known = {digests.hex_of(row.digest) for row in self._rows.all()}
            found = sorted(set(os.listdir(self._blobs)) - known - self._half_removed())
            if take_up:
                self._take_up(found, verify=True)
        return [self._blobs / name for name in found]

    def remove_files(self, forgotten: Iterable[Digest]) -> int:
        """Remove the files of blobs whose rows are gone, unless a row exists again;
        return the bytes freed."""
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
    """One blob that is being written. Leaving the ``with`` closes it: a blob with a ref can be continued
    later; one without is discarded unless it was committed."""

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
        """The digest of the bytes written so far."""
        return Digest("sha256:" + self._hash.hexdigest())

    def reopen(self) -> int:
        """A second descriptor, for reading the bytes written so far while the blob is being committed."""
        return os.open(f"/proc/self/fd/{self._file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)

    def restart(self) -> None:
        """Discard the bytes written so far, and start from the first byte."""
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
        """Verify, sync, and publish. A blob that fails verification is discarded.

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
        """Discard the blob."""
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
