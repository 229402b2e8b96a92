"""Images as tar archives: ``docker load`` and ``docker save``.

Read: OCI layouts (``oci-layout``, ``index.json``, ``blobs/``), docker archives of every age
(``manifest.json``), and the combined form; plain, gzip, zstd, bzip2 or xz as a whole. Written: the combined
form, as Docker since 25 (:mod:`wherry.images.archive_save`).

Loading is one pass over the stream with bounded memory. Blobs go into the content store as they arrive. A
member that looks like a layer is unpacked at once, before it is known which image it belongs to, while the
next one arrives.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from wherry import threads
from wherry.errors import InvalidArgument, NotFound, WherryError
from wherry.images.archive_index import ArchiveMember, LoadPlan, plan_docker, plan_oci
from wherry.images.graph import PlatformImage
from wherry.images.layers import PreparedLayer
from wherry.images.store import ImageStore, layers_of
from wherry.model import digest as digests
from wherry.model import oci, tarformat
from wherry.model.digest import Digest
from wherry.model.oci import Descriptor, Platform
from wherry.model.reference import Reference
from wherry.model.tarformat import BadTar, Buffered, TarReader
from wherry.storage import streams
from wherry.storage.confined.unpack import Unpacker
from wherry.storage.content import Writer
from wherry.storage.leases import Lease
from wherry.storage.streams import Readable

log = logging.getLogger(__name__)

Progress = Callable[[dict[str, object]], None]
_SMALL = 1 << 20
_SMALL_TOTAL = 64 << 20
_KEPT_TOTAL = 32 << 20
_PIECE = 1 << 20
_PROGRESS_STEP = 16 << 20
_NAMED = ("index.json", "manifest.json", "oci-layout", "repositories")


@dataclass(frozen=True)
class LoadedImage:
    """One target of the archive; ``id`` is its digest."""

    names: tuple[Reference, ...]
    id: Digest


@dataclass
class _Arrived:
    """The archive's members, by path."""

    members: dict[str, ArchiveMember] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    small_total: int = 0

    def find(self, path: str) -> ArchiveMember | None:
        """Find a member by its path; old docker archives have links between layers, which are followed."""
        for _ in range(8):
            path = _normal(path)
            if path in self.members:
                return self.members[path]
            if path not in self.links:
                return None
            path = self.links[path]
        return None


class _Kept:
    """Bytes of small files that all loads together keep in memory; ``lock`` protects the sum."""

    lock = threading.Lock()
    total = 0


class Loader:
    """Loads one archive."""

    def __init__(self, store: ImageStore, unpacker: Unpacker, progress: Progress) -> None:
        self._store = store
        self._unpacker = unpacker
        self._progress = progress
        self._arrived = _Arrived()
        self._ready: dict[Digest, Future[PreparedLayer]] = {}
        self._commits: list[Future[Digest]] = []
        self._kept = 0

    def load(self, stream: Readable, platforms: Sequence[Platform] = ()) -> list[LoadedImage]:
        """See :func:`load`."""
        with ExitStack() as stack:
            lease = stack.enter_context(self._store.leases.hold("load"))
            stack.callback(self._forget)
            stack.callback(self._discard_unused)
            stack.callback(self._end_commits)
            with self._unpacker.decompress(stream) as plain:
                self._receive(plain, lease)
            for commit in self._commits:
                commit.result()
            plans = self._plans(lease)
            if not plans:
                raise InvalidArgument("cannot load the archive: it has no images")
            return [self._finish(plan, platforms, lease) for plan in plans]

    def _may_keep(self, size: int) -> bool:
        """Whether a small file may stay in memory: there is a common limit for all loads. Other files go to
        the disk, like large ones."""
        with _Kept.lock:
            if _Kept.total + size > _KEPT_TOTAL:
                return False
            _Kept.total += size
        self._kept += size
        return True

    def _forget(self) -> None:
        with _Kept.lock:
            _Kept.total -= self._kept

    def _end_commits(self) -> None:
        """Wait until no blob is being written any more, whether or not the load succeeded."""
        for commit in self._commits:
            commit.exception()

    def _discard_unused(self) -> None:
        for prepared in self._ready.values():
            self._store.layers.discard(prepared)

    # receiving

    def _receive(self, plain: Readable, lease: Lease) -> None:
        source = Buffered(lambda: plain.read(_PIECE))
        reader = TarReader(source, self._unpacker.limits)
        try:
            for entry in reader:
                path = _normal(entry.name.decode("utf-8", "surrogateescape"))
                if entry.type == tarformat.FILE and entry.sparse is None:
                    self._receive_file(path, entry.size, reader.data(), lease)
                elif entry.type == tarformat.SYMLINK:
                    target = entry.linkname.decode("utf-8", "surrogateescape")
                    self._arrived.links[path] = str(PurePosixPath(path).parent / target)
                elif entry.type == tarformat.LINK:
                    self._arrived.links[path] = entry.linkname.decode("utf-8", "surrogateescape")
            while plain.read(_PIECE):
                pass  # a compressed stream is verified up to its end
        except BadTar as e:
            raise InvalidArgument(f"cannot load the archive: {e}") from e

    def _receive_file(
        self,
        path: str,
        size: int,
        data: Iterator[bytes | memoryview],
        lease: Lease,
    ) -> None:
        expected = _blob_digest(path)
        if path in _NAMED or (expected is None and size <= _SMALL and self._may_keep(size)):
            if size > oci.CONFIG_SIZE_MAX:
                raise InvalidArgument(f"cannot load the archive: {path} has {size} bytes")
            self._arrived.small_total += size
            if self._arrived.small_total > _SMALL_TOTAL:
                raise InvalidArgument("cannot load the archive: it has too many small files")
            content = b"".join(data)
            self._arrived.members[path] = ArchiveMember(digests.of(content), size, content)
            return
        if expected is not None and self._store.content.keep(expected, lease.id):
            self._arrived.members[path] = ArchiveMember(expected, size, None)
            return
        writer = self._store.content.ingest()
        try:
            digest = self._copy(path, size, data, writer)
            if expected is not None and digest != expected:
                raise InvalidArgument(f"cannot load the archive: {path} has the digest {digest}")
            self._prepare_early(digest, writer)
        except BaseException:
            writer.abort()
            raise
        self._arrived.members[path] = ArchiveMember(digest, size, None)
        self._commits.append(threads.disk.submit(_commit, writer, lease))

    def _copy(self, path: str, size: int, data: Iterator[bytes | memoryview], writer: Writer) -> Digest:
        short, step = PurePosixPath(path).name[:12], 0
        for piece in data:
            writer.write(piece)
            if writer.offset >= step and size > _SMALL:
                step = writer.offset + _PROGRESS_STEP
                self._progress(
                    {
                        "status": "Loading layer",
                        "id": short,
                        "progressDetail": {"current": writer.offset, "total": size},
                    }
                )
        return writer.digest

    def _prepare_early(self, digest: Digest, writer: Writer) -> None:
        """Start to unpack what looks like a layer, through its own descriptor."""
        if not self._store.layers.snapshotter.rebase or digest in self._ready:
            return
        fd = writer.reopen()
        head = os.pread(fd, 512, 0)
        compression = streams.detect(head)
        if head[257:262] == b"ustar" or compression in (streams.GZIP, streams.ZSTD):
            self._ready[digest] = self._store.layers.prepare(digest, fd)
        else:
            os.close(fd)

    # making images

    def _plans(self, lease: Lease) -> list[LoadPlan]:
        find = self._arrived.find
        # Without the ``oci-layout`` file, an archive that has both forms counts as docker's.
        if find("index.json") is not None and (find("oci-layout") or not find("manifest.json")):
            return plan_oci(find, lambda member: self._keep(member, lease), self._store)
        if find("manifest.json") is not None:
            return plan_docker(find, lambda member: self._keep(member, lease), self._store, lease)
        raise InvalidArgument("cannot load the archive: it has neither index.json nor manifest.json")

    def _keep(self, member: ArchiveMember, lease: Lease) -> None:
        """Put a small file into the content store, once it is known that an image needs it."""
        if member.data is not None:
            self._store.content.put(member.data, lease=lease.id)

    def _finish(self, plan: LoadPlan, platforms: Sequence[Platform], lease: Lease) -> LoadedImage:
        target = plan.target
        shown = plan.names[0].familiar() if plan.names else target.digest
        here = [
            m for m in self._store.graph.manifests(target) if m.config is not None and not m.is_attestation
        ]
        wanted = _select(here, platforms, shown)
        if not here and target.media_type in oci.MANIFEST_TYPES:
            self._require_config(target)
        for image in wanted:
            self._unpack(image, lease)
        self._store.add(target)
        if platforms:
            self._store.drop_unwanted(target.digest, [image.descriptor.digest for image in wanted])
        for name in plan.names:
            self._store.tag(name, target, why="load")
        text = f"Loaded image: {shown}" if plan.names else f"Loaded image ID: {shown}"
        self._progress({"stream": text + "\n"})
        return LoadedImage(plan.names, target.digest)

    def _require_config(self, target: Descriptor) -> None:
        for manifest in self._store.graph.manifests(target):
            if not self._store.content.has(manifest.manifest.config.digest):
                raise InvalidArgument(
                    f"cannot load the archive: blob {manifest.manifest.config.digest} is missing"
                )

    def _unpack(self, image: PlatformImage, lease: Lease) -> None:
        assert image.config is not None
        for blob in [image.manifest.config, *image.manifest.layers]:
            if not self._store.content.has(blob.digest):
                raise InvalidArgument(f"cannot load the archive: blob {blob.digest} is missing")
            if self._store.content.size(blob.digest) != blob.size:
                raise InvalidArgument(f"cannot load the archive: blob {blob.digest} is not {blob.size} bytes")
        for chain_id in image.chain_ids:
            lease.keep_snapshot(chain_id)
        layers = layers_of(image.manifest.layers, image.config.rootfs.diff_ids)
        try:
            self._store.layers.ensure(layers, lambda at: self._ready.pop(layers[at].digest, None))
        except InvalidArgument as e:
            # The image is stored unchanged, and can be saved or pushed again. Running it will report the same
            # error.
            log.warning("loaded an image that cannot be unpacked: %s", e.message)
            self._progress({"stream": f"WARNING: the image cannot be run: {e.message}\n"})


def load(
    store: ImageStore,
    unpacker: Unpacker,
    stream: Readable,
    *,
    platforms: Sequence[Platform] = (),
    progress: Progress = lambda message: None,
) -> list[LoadedImage]:
    """Load every image of an archive, unpack those for this host (or for ``platforms``), and name them.

    If an archive is refused, nothing of it is kept.

    :param progress: called with messages in the form of Docker's progress stream.
    :raises InvalidArgument: not an archive of images; or it is broken, hostile, or exceeds a limit.
    :raises NotFound: a requested platform is missing. :raises Unavailable: the disk is full.
    """
    try:
        loaded = Loader(store, unpacker, progress).load(stream, platforms)
    except WherryError:
        store.collect()
        raise
    if platforms:
        store.collect()
    return loaded


def _select(here: Sequence[PlatformImage], platforms: Sequence[Platform], shown: str) -> list[PlatformImage]:
    """The images to unpack: the requested ones, or this host's, or the only one in the archive."""
    if platforms:
        found = []
        for platform in platforms:
            matching = [image for image in here if image.platform.satisfies(platform)]
            if not matching:
                raise NotFound(
                    f"image {shown} was loaded, but doesn't provide the requested platform ({platform})"
                )
            found += [image for image in matching if image not in found]
        return found
    host = oci.host()
    mine = [
        image
        for image in here
        if image.platform.satisfies(Platform(os=host.os, architecture=host.architecture))
    ]
    return mine or (list(here) if len(here) == 1 else [])


def _commit(writer: Writer, lease: Lease) -> Digest:
    return writer.commit(lease=lease.id)


def _blob_digest(path: str) -> Digest | None:
    """The digest in a layout's path."""
    head, _, name = path.rpartition("/")
    digest = "sha256:" + name
    return Digest(digest) if head == "blobs/sha256" and digests.is_digest(digest) else None


def _normal(path: str) -> str:
    """A member's path without ``.``, ``..`` and empty parts; only used as a key, never opened."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
