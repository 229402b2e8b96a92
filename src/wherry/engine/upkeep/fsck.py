"""``system fsck``: check the store's rows, files and snapshots against each other, and repair them.

The checks: the hash of every blob; files without a row; images with missing documents or layers; snapshots
whose files are gone, or more or fewer than recorded. A repair drops what is wrong and fetches it again from
its source; a snapshot is unpacked again. Anything that a container uses is only reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from wherry import threads
from wherry.engine.images.refetch import Refetcher
from wherry.engine.images.users import images_of
from wherry.errors import Conflict, InvalidArgument, NotFound, WherryError
from wherry.images import packing
from wherry.images.store import ImageStore, descriptor_of
from wherry.model.credentials import Credentials
from wherry.model.digest import Digest
from wherry.model.images import Image
from wherry.model.oci import Descriptor
from wherry.state.containers import Containers
from wherry.state.images import ImageRow
from wherry.storage.snapshots import COMMITTED

BLOB, FILE, SNAPSHOT, IMAGE = "blob", "file", "snapshot", "image"


@dataclass(frozen=True)
class StoreFinding:
    """:ivar kind: ``blob``, ``file``, ``snapshot`` or ``image``. :ivar repair: what was done, or why nothing
    was done; empty if no repair was asked for. :ivar failed: whether it is still wrong."""

    kind: str
    name: str
    problem: str
    repair: str = ""
    failed: bool = True


Tell = Callable[[StoreFinding], None]


class FsckService:
    """Used on the loop only; one check at a time."""

    def __init__(self, *, images: ImageStore, refetcher: Refetcher, containers: Containers) -> None:
        self._images, self._refetcher, self._containers = images, refetcher, containers
        self._lock = asyncio.Lock()

    async def check(
        self, *, repair: bool, credentials: Sequence[Credentials], tell: Tell
    ) -> list[StoreFinding]:
        """Check everything; with ``repair`` also repair it. ``tell`` is called at once with each finding."""
        found: list[StoreFinding] = []

        def say(finding: StoreFinding) -> None:
            found.append(finding)
            tell(finding)

        async with self._lock:
            with self._images.leases.hold("fsck") as lease:
                for row in await threads.child(lambda: list(self._images.content.walk())):
                    # Only what is still recorded: it may have been removed while others were read.
                    problem = await threads.child(self._images.content.problem, row.digest)
                    if problem and self._images.content.knows(row.digest):
                        lease.keep_content(row.digest)
                        wanted = Descriptor(media_type=row.media_type, digest=row.digest, size=row.size)
                        say(await self._blob(wanted, problem, credentials, repair=repair))
                for path in await threads.child(self._images.content.strays, take_up=repair):
                    say(_done(StoreFinding(FILE, str(path), "no row knows it"), "taken up", repair))
                for finding in await threads.child(lambda: list(self._snapshots(repair=repair))):
                    say(finding)
                for finding in await threads.child(lambda: list(self._of_images(repair=repair))):
                    say(finding)
        return found

    # blobs

    async def _blob(
        self, blob: Descriptor, problem: str, credentials: Sequence[Credentials], *, repair: bool
    ) -> StoreFinding:
        finding = StoreFinding(BLOB, blob.digest, problem)
        if not repair:
            return finding
        await threads.disk(self._images.content.set_aside, blob.digest, problem)
        try:
            with self._images.leases.hold("fsck") as lease:
                packed = await self._refetcher.packed(blob, lease)
                place = None if packed else await self._refetcher.blob(blob, credentials, lease)
        except NotFound:
            how = (
                "dropped, as no registry is known to have it; `wherry system lost ls` has what is left of it"
            )
            return _done(finding, how, repair)
        await threads.disk(self._images.content.forget_set_aside, blob.digest)
        how = (
            "made again of the layer's files"
            if place is None
            else f"fetched again from {place.familiar_name}"
        )
        return _done(finding, how, repair)

    # snapshots

    def _snapshots(self, *, repair: bool) -> Iterator[StoreFinding]:
        problems = self._images.layers.snapshotter.problems()
        for key, problem in problems.items():
            finding = StoreFinding(SNAPSHOT, key, problem)
            if not repair:
                yield finding
            elif (why := self._unpack_again(key)) == "":
                yield _done(finding, "unpacked again", repair)
            else:
                yield StoreFinding(SNAPSHOT, key, problem, why)

    def _unpack_again(self, key: str) -> str:
        """Remove a snapshot and all above it, then unpack the images that need them;
        returns why not, if it fails."""
        snapshotter = self._images.layers.snapshotter
        below = {info.key: info for info in snapshotter.walk()}
        doomed = [key]
        for info in below.values():  # parents first
            if info.parent in doomed:
                doomed.append(info.key)
        users = [one for one in doomed if one in below and below[one].kind != COMMITTED]
        if users:
            return f"not repaired: {users[0][:12]} uses it"
        wanting = [image for image in self._everything() if set(image.chain_ids) & set(doomed)]
        for image in wanting:
            for layer in image.manifest.layers:
                if not self._images.content.has(layer.digest):
                    return f"not repaired: its blob {layer.digest} is not here to unpack it from"
        try:
            for one in reversed(doomed):
                with suppress(NotFound):  # it was removed with an earlier one
                    snapshotter.remove(one)
        except Conflict as e:
            return f"not repaired: {e.message}"  # a container took it in this moment
        finally:
            failed = self._unpacked(wanting)
        return failed

    def _unpacked(self, wanting: Sequence[Image]) -> str:
        try:
            for image in wanting:
                self._images.ensure_unpacked(image)
        except WherryError as e:
            return f"not repaired: {e.message}"
        return ""

    def _everything(self) -> Iterator[Image]:
        for row in self._images.rows.all():
            try:
                yield self._images.resolve(row.target)
            except WherryError:
                continue

    # images

    def _of_images(self, *, repair: bool) -> Iterator[StoreFinding]:
        used = {image for row in self._containers.all() for image in images_of(row.record)}
        for row in self._images.rows.all():
            names = ", ".join(self._images.rows.names_of(row.target))
            shown = f" ({names})" if names else ""
            for layer in self._changed(row):
                problem = f"the files of its layer {layer} are not what they were{shown}"
                yield StoreFinding(
                    IMAGE, row.target, problem, "not repaired: build or load it again" if repair else ""
                )
            problem = self._image_problem(row.target)
            if not problem:
                continue
            finding = StoreFinding(IMAGE, row.target, f"{problem}{shown}")
            if repair and row.target in used:
                yield StoreFinding(IMAGE, row.target, finding.problem, "not repaired: a container uses it")
                continue
            if repair:
                for name in self._images.rows.names_of(row.target):
                    self._images.rows.move(name, None, actor=self._images.who(), why="fsck")
                self._images.rows.delete(row.target)
                self._images.collect()
            yield _done(finding, "dropped", repair)

    def _changed(self, row: ImageRow) -> Iterator[Digest]:
        """Layers that exist only as files, and whose files no longer give their digest."""
        target = descriptor_of(row)
        with suppress(WherryError):  # errors in its documents are reported elsewhere
            for layer in packing.missing(self._images, target):
                if not packing.is_intact(self._images, layer):
                    yield layer[0].digest

    def _image_problem(self, target: Digest) -> str:
        images = self._images
        try:
            image = images.resolve(target)
        except (NotFound, InvalidArgument):
            return "its documents are not here"
        for layer, chain in zip(image.manifest.layers, image.chain_ids, strict=False):
            if not images.layers.has(chain) and not images.content.has(layer.digest):
                return f"its layer {layer.digest} is neither here nor unpacked"
        return ""


def _done(finding: StoreFinding, how: str, repair: bool) -> StoreFinding:
    if not repair:
        return finding
    return StoreFinding(finding.kind, finding.name, finding.problem, how, failed=False)
