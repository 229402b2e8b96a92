"""``system fsck``: the store's rows, files and snapshots held against each other, and what helps.

What is looked at: every blob is hashed again; files without a row; images whose documents or layers are not
here; snapshots whose files are gone, or more or fewer than they were. A repair drops what is wrong and
fetches it again from where it came; a snapshot is unpacked again. What a container uses is left alone, and
named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from wherry.engine.refetch import Refetcher
from wherry.errors import Conflict, InvalidArgument, NotFound, WherryError
from wherry.images.store import ImageStore
from wherry.model.credentials import Credentials
from wherry.model.digest import Digest
from wherry.model.images import Image
from wherry.model.oci import Descriptor
from wherry.state.containers import Containers
from wherry.storage.snapshots import COMMITTED

BLOB, FILE, SNAPSHOT, IMAGE = "blob", "file", "snapshot", "image"


@dataclass(frozen=True)
class Finding:
    """:ivar kind: ``blob``, ``file``, ``snapshot`` or ``image``. :ivar repair: what was done, or why nothing;
    empty where it was not asked for. :ivar failed: whether it is wrong still."""

    kind: str
    name: str
    problem: str
    repair: str = ""
    failed: bool = True


Tell = Callable[[Finding], None]


class FsckService:
    """Used on the loop only; one check at a time."""

    def __init__(self, *, images: ImageStore, refetcher: Refetcher, containers: Containers) -> None:
        self._images, self._refetcher, self._containers = images, refetcher, containers
        self._lock = asyncio.Lock()

    async def check(self, *, repair: bool, credentials: Sequence[Credentials], tell: Tell) -> list[Finding]:
        """Look at everything, and mend it with ``repair``; ``tell`` hears of each finding at once."""
        found: list[Finding] = []

        def say(finding: Finding) -> None:
            found.append(finding)
            tell(finding)

        async with self._lock:
            with self._images.leases.hold("fsck") as lease:
                for row in await asyncio.to_thread(lambda: list(self._images.content.walk())):
                    # Only what somebody still knows: it may have been removed while others were read.
                    problem = await asyncio.to_thread(self._images.content.problem, row.digest)
                    if problem and self._images.content.has(row.digest):
                        lease.keep_content(row.digest)
                        wanted = Descriptor(media_type=row.media_type, digest=row.digest, size=row.size)
                        say(await self._blob(wanted, problem, credentials, repair=repair))
                for path in await asyncio.to_thread(self._images.content.strays, remove=repair):
                    say(_done(Finding(FILE, str(path), "no row knows it"), "removed", repair))
                for finding in await asyncio.to_thread(lambda: list(self._snapshots(repair=repair))):
                    say(finding)
                for finding in await asyncio.to_thread(lambda: list(self._of_images(repair=repair))):
                    say(finding)
        return found

    # blobs

    async def _blob(
        self, blob: Descriptor, problem: str, credentials: Sequence[Credentials], *, repair: bool
    ) -> Finding:
        finding = Finding(BLOB, blob.digest, problem)
        if not repair:
            return finding
        self._images.content.delete(blob.digest)
        try:
            with self._images.leases.hold("fsck") as lease:
                place = await self._refetcher.blob(blob, credentials, lease)
        except NotFound:
            return _done(finding, "dropped, as no registry is known to have it", repair)
        return _done(finding, f"fetched again from {place.familiar_name}", repair)

    # snapshots

    def _snapshots(self, *, repair: bool) -> Iterator[Finding]:
        problems = self._images.layers.snapshotter.problems()
        for key, problem in problems.items():
            finding = Finding(SNAPSHOT, key, problem)
            if not repair:
                yield finding
            elif (why := self._unpack_again(key)) == "":
                yield _done(finding, "unpacked again", repair)
            else:
                yield Finding(SNAPSHOT, key, problem, why)

    def _unpack_again(self, key: str) -> str:
        """Remove a snapshot and what lies on it, and unpack the images that want them; why not, if not."""
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
                with suppress(NotFound):  # it went with an earlier one
                    snapshotter.remove(one)
        except Conflict as e:
            return f"not repaired: {e.message}"  # a container came in this moment
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

    def _of_images(self, *, repair: bool) -> Iterator[Finding]:
        used = {row.record.image_id for row in self._containers.all()}
        for row in self._images.rows.all():
            problem = self._image_problem(row.target)
            if not problem:
                continue
            names = ", ".join(self._images.rows.names_of(row.target))
            finding = Finding(IMAGE, row.target, f"{problem}{f' ({names})' if names else ''}")
            if repair and row.target in used:
                yield Finding(IMAGE, row.target, finding.problem, "not repaired: a container uses it")
                continue
            if repair:
                for name in self._images.rows.names_of(row.target):
                    self._images.rows.move(name, None, actor=self._images.who(), why="fsck")
                self._images.rows.delete(row.target)
                self._images.collect()
            yield _done(finding, "dropped", repair)

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


def _done(finding: Finding, how: str, repair: bool) -> Finding:
    if not repair:
        return finding
    return Finding(finding.kind, finding.name, finding.problem, how, failed=False)
