"""Names -> images.

A name (``docker.io/library/busybox:latest``) points to a target. An image is one platform of a target, and is
identified by the target's digest. Images are immutable; names move, and every move is a row in the history. A
target without a name ("dangling") stays until it is deleted or pruned, as in Docker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.images.graph import Graph, PlatformImage
from wherry.images.layers import LayerStore, PackedLayer
from wherry.model import digest as digests
from wherry.model import oci, reference
from wherry.model.digest import Digest
from wherry.model.images import HistoryEntry, Image, ImageSummary, ManifestSummary, parse_time
from wherry.model.oci import Descriptor, Platform
from wherry.model.platforms import preferred_platforms, rank
from wherry.model.reference import Reference
from wherry.state.images import ImageRow, Images, NameMove, Sizes
from wherry.storage.content import ContentStore
from wherry.storage.gc import Collected, Collector
from wherry.storage.leases import Leases

_SHORT_ID = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")
_SECOND = 1_000_000_000
ATTESTS = "vnd.docker.reference.digest"


_Described = dict[tuple[Digest, int], tuple[dict[str, str], int]]
"""Labels, and when it was made in nanoseconds, by target and its row's time."""


class ImageStore:
    """The store. Safe to use from any thread."""

    def __init__(
        self,
        rows: Images,
        content: ContentStore,
        layers: LayerStore,
        leases: Leases,
        collector: Collector,
        *,
        discards: bool = False,
        who: Callable[[], str] = lambda: "",
    ) -> None:
        """:param discards: whether blobs of unpacked layers are discarded after a pull.
        :param who: returns the present client, for the history of names.
        """
        self.rows = rows
        self.content = content
        self.layers = layers
        self.leases = leases
        self.graph = Graph(content)
        self._collector = collector
        self._driver = layers.snapshotter.name
        self.discards, self.who = discards, who
        self._described: tuple[int, _Described] = (-1, {})
        """What a list shows of targets' documents, for one generation of the content: there may be thousands
        of targets, and each has several documents."""

    # finding

    def resolve(self, text: str, platform: Platform | None = None) -> Image:
        """Find an image by name, ``name@digest``, digest of its target, manifest or config, or short id.

        :param platform: the image must have it; without it the best one for this host, else any that is here.
        :raises NotFound: ``No such image: …``, or it lacks the platform.
        :raises Conflict: a short id that is not unique. :raises InvalidArgument: an invalid reference.
        """
        row = self._row(text)
        return self._image(row, self._choose(row, text, platform))

    def find(self, text: str) -> Descriptor:
        """The target for a name or an id; raises what :meth:`resolve` raises."""
        return descriptor_of(self._row(text))

    def _row(self, text: str) -> ImageRow:
        name_of, back = reference.split_version(text)
        if back is not None:
            return self._version(reference.parse(name_of).with_default_tag(), back, text)
        if digests.is_digest(text):
            digest = Digest(text)
            if (row := self.rows.get(digest)) is not None:
                return row
            return self._by_prefix(digests.hex_of(digest), text)
        short = _SHORT_ID.fullmatch(text)
        try:
            name = reference.parse(text)
        except InvalidArgument:
            if short is None:
                raise
            return self._by_prefix(short[1], text)
        if name.digest is not None:
            return self._by_name_and_digest(name)
        target = self.rows.target_of(str(name.with_default_tag()))
        if target is not None and (row := self.rows.get(target)) is not None:
            return row
        if short is not None:
            return self._by_prefix(short[1], name.with_default_tag().familiar())
        raise NotFound(f"No such image: {name.with_default_tag().familiar()}")

    def _version(self, name: Reference, back: int, shown: str) -> ImageRow:
        """The target that a name had before its last ``back`` moves (see ``images.versions``)."""
        moves = self.moves(name)
        removed = [""] if moves and not moves[-1].new else []  # now the name points to nothing
        targets = [*removed, *(move.new for move in reversed(moves) if move.new)]
        distinct = [t for i, t in enumerate(targets) if i == 0 or t != targets[i - 1]]
        row = self.rows.get(Digest(distinct[back])) if back < len(distinct) else None
        if row is None:
            raise NotFound(f"No such image: {shown}")
        return row

    def _by_name_and_digest(self, name: Reference) -> ImageRow:
        assert name.digest is not None
        row = self.rows.get(name.digest)
        if row is not None and any(
            reference.parse(n).name == name.name for n in self.rows.names_of(row.target)
        ):
            return row
        raise NotFound(f"No such image: {name.familiar()}")

    def _by_prefix(self, prefix: str, shown: str) -> ImageRow:
        for targets in (self.rows.targets_with_prefix(prefix), self.rows.targets_with_part(prefix)):
            if len(targets) > 1:
                raise Conflict(f"multiple IDs found with provided prefix: {prefix}")
            if targets and (row := self.rows.get(targets[0])) is not None:
                return row
        raise NotFound(f"No such image: {shown}")

    def _choose(self, row: ImageRow, text: str, platform: Platform | None) -> PlatformImage:
        here = [
            image
            for image in self.graph.manifests(descriptor_of(row))
            if image.config is not None and not image.is_attestation
        ]
        if platform is not None:
            here = [image for image in here if image.platform.satisfies(platform)]
            if not here:
                raise NotFound(
                    f"image with reference {_familiar(text)} was found but does not provide the specified "
                    f"platform ({platform})"
                )
        if not here:
            raise NotFound(f"No such image: {text}")
        preferred = preferred_platforms(oci.host())
        return min(here, key=lambda image: rank(image.platform, preferred))

    def _image(self, row: ImageRow, chosen: PlatformImage) -> Image:
        assert chosen.config is not None
        return Image(
            id=row.target,
            target=descriptor_of(row),
            manifest_descriptor=chosen.descriptor,
            manifest=chosen.manifest,
            config_descriptor=chosen.manifest.config,
            config=chosen.config,
            names=self._names(row.target),
            chain_ids=chosen.chain_ids,
            last_tagged_ns=row.updated,
        )

    def _names(self, target: Digest) -> tuple[Reference, ...]:
        return tuple(reference.parse(name) for name in self.rows.names_of(target))

    # listing

    def list(self, *, manifests: bool = False, shared_size: bool = False) -> list[ImageSummary]:
        """Every target, dangling ones included, newest first.

        :param shared_size: compute the shared size; -1 otherwise.
        """
        names: dict[Digest, list[Reference]] = {}
        for name, target in self.rows.names():
            names.setdefault(target, []).append(reference.parse(name))
        sizes = self.rows.sizes(self._driver)
        shared = self.rows.shared_sizes(self._driver) if shared_size else {}
        found = []
        rows = self.rows.all()
        described = self._descriptions(rows)
        for row in rows:
            labels, created = described[row.target, row.created]
            found.append(
                ImageSummary(
                    id=row.target,
                    target=descriptor_of(row),
                    names=tuple(names.get(row.target, ())),
                    created=created // _SECOND,
                    created_ns=created,
                    size=sizes.get(row.target, Sizes(0, 0)).total,
                    shared_size=shared.get(row.target, 0) if shared_size else -1,
                    labels=labels,
                    manifests=tuple(self.manifests(row.target)) if manifests else (),
                )
            )
        return sorted(found, key=lambda image: -image.created_ns)

    def _descriptions(self, rows: Sequence[ImageRow]) -> _Described:
        generation, (at, known) = self.content.generation, self._described
        if at != generation:
            known = {}
        described = {
            key: known.get(key) or self._labels_and_time(row)
            for row in rows
            for key in [(row.target, row.created)]
        }
        self._described = generation, described
        return described

    def labels(self, target: Digest) -> dict[str, str]:
        """An image's labels; empty if it has none, or is not here."""
        row = self.rows.get(target)
        return {} if row is None else self._labels_and_time(row)[0]

    def _labels_and_time(self, row: ImageRow) -> tuple[dict[str, str], int]:
        try:
            config = self._choose(row, row.target, None).config
        except (NotFound, InvalidArgument):
            return {}, row.created
        assert config is not None
        created = parse_time(config.created)
        return config.config.labels or {}, row.created if created is None else created

    def manifests(self, target: Digest) -> Sequence[ManifestSummary]:
        """The parts of every manifest of a target that are here."""
        row = self.rows.get(target)
        return [] if row is None else [self._manifest(m) for m in self.graph.manifests(descriptor_of(row))]

    def _manifest(self, image: PlatformImage) -> ManifestSummary:
        parts = [image.manifest.config, *image.manifest.layers]
        here = [part for part in parts if self.content.has(part.digest)]
        packable = {
            layer.digest
            for layer, chain in zip(image.manifest.layers, image.chain_ids, strict=False)
            if layer.media_type in oci.PLAIN_LAYER_TYPES and self.layers.has(chain)
        }
        kind = "attestation" if image.is_attestation else "image" if image.config is not None else "unknown"
        attests = (image.descriptor.annotations or {}).get(ATTESTS)
        return ManifestSummary(
            descriptor=image.descriptor,
            kind=kind,
            available=packable.issuperset(part.digest for part in parts if part not in here),
            platform=image.platform if kind == "image" else None,
            content_size=image.descriptor.size + sum(part.size for part in here),
            unpacked_size=sum(self._layer_size(chain) for chain in image.chain_ids) if kind == "image" else 0,
            attests=digests.parse(attests) if attests and digests.is_digest(attests) else None,
        )

    def _layer_size(self, chain_id: Digest) -> int:
        try:
            return self.layers.snapshotter.usage(chain_id).bytes
        except NotFound:
            return 0

    def size(self, target: Digest) -> int:
        """Bytes of an image's blobs and snapshots that are here."""
        return self.rows.sizes(self._driver).get(target, Sizes(0, 0)).total

    def history(self, image: Image) -> Sequence[HistoryEntry]:
        """The steps that made it, newest first, as Docker lists them."""
        entries = []
        chain = iter(image.chain_ids)
        for step in image.config.history:
            top = None if step.empty_layer else next(chain, None)
            entries.append(
                HistoryEntry(
                    id="<missing>",
                    created=(parse_time(step.created) or 0) // _SECOND,
                    created_by=step.created_by or "",
                    tags=(),
                    size=self._layer_size(top) if top is not None else 0,
                    comment=step.comment or "",
                )
            )
        entries.reverse()
        if entries:
            first = entries[0]
            entries[0] = HistoryEntry(
                image.id, first.created, first.created_by, tuple(image.repo_tags), first.size, first.comment
            )
        return entries

    # changing

    def add(self, target: Descriptor) -> None:
        """Record a target whose blobs are in the content store; from now on they are kept.

        :raises NotFound, InvalidArgument: its documents are missing or broken.
        """
        self.graph.document(target)
        roles, chains = self.graph.closure(target)
        self.rows.put((target.digest, target.media_type, target.size), roles.items(), chains)

    def drop_unwanted(self, target: Digest, wanted: Sequence[Digest]) -> None:
        """Release the blobs that only other manifests of a target need; the index itself stays complete."""
        row = self.rows.get(target)
        if row is None:
            return
        keep: set[Digest] = {target}
        drop: set[Digest] = set()
        for image in self.graph.manifests(descriptor_of(row)):
            parts = {image.descriptor.digest, image.manifest.config.digest}
            parts.update(layer.digest for layer in image.manifest.layers)
            attests = (image.descriptor.annotations or {}).get(ATTESTS)
            (keep if image.descriptor.digest in wanted or attests in wanted else drop).update(parts)
        self.rows.forget_content(target, drop - keep)

    def tag(self, name: Reference, target: Descriptor | Digest, *, why: str, by: str = "") -> Digest | None:
        """Point a name to a target and record the move; returns the target it had before.

        :raises InvalidArgument: the name has a digest. :raises NotFound: no such image.
        """
        if name.digest is not None:
            raise InvalidArgument("cannot import digest reference")
        digest = target.digest if isinstance(target, Descriptor) else target
        if self.rows.get(digest) is None:
            raise NotFound(f"No such image: {digest}")
        return self.rows.move(str(name.with_default_tag()), digest, actor=by or self.who(), why=why)

    def keep_as(self, name: Reference, target: Digest, *, why: str, by: str = "") -> None:
        """Record that a target came as ``repository@digest``: so it is found by that, and is not dangling.

        If a tag of the repository points to it already, nothing is recorded.
        """
        if all(known.name != name.name for known in self._names(target)):
            self.rows.move(f"{name.name}@{target}", target, actor=by or self.who(), why=why)

    def moves(self, name: Reference) -> Sequence[NameMove]:
        """Every move of a name, oldest first."""
        return self.rows.moves(str(name.with_default_tag()))

    def is_whole(self, image: Image) -> bool:
        """Whether its layers are unpacked, and all its blobs are here,
        except those that are missing on purpose."""
        parts = [part for part in image.manifest.layers if not self.needs_no_blob(part)]
        return all(self.content.has(part.digest) for part in (image.manifest.config, *parts)) and all(
            self.layers.has(chain_id) for chain_id in image.chain_ids
        )

    def needs_no_blob(self, layer: Descriptor) -> bool:
        """Whether an unpacked layer is complete without its blob,
        because that was discarded or can be made again."""
        return self.discards or layer.media_type in oci.PLAIN_LAYER_TYPES

    def ensure_unpacked(self, image: Image) -> Digest | None:
        """Unpack the image's layers if necessary; returns the snapshot to start from (``None``: no layers).

        Concurrent callers share the work. Raises what :meth:`wherry.images.layers.LayerStore.ensure` raises.
        """
        return self.layers.ensure(layers_of(image.manifest.layers, image.config.rootfs.diff_ids))

    def collect(self) -> Collected:
        """Remove what is no longer needed."""
        return self._collector.collect()


def layers_of(blobs: Sequence[Descriptor], diff_ids: Sequence[Digest]) -> list[PackedLayer]:
    """Pair blobs with their diff ids. :raises InvalidArgument: their numbers differ."""
    if len(blobs) != len(diff_ids):
        raise InvalidArgument(
            f"invalid image: its manifest has {len(blobs)} layers, its configuration {len(diff_ids)}"
        )
    return [PackedLayer(blob.digest, diff_id) for blob, diff_id in zip(blobs, diff_ids, strict=True)]


def descriptor_of(row: ImageRow) -> Descriptor:
    """The target that a row records."""
    return Descriptor(media_type=row.media_type, digest=row.target, size=row.size)


def _familiar(text: str) -> str:
    """A name with its tag, as Docker shows it in errors; an id as it was given."""
    try:
        return reference.parse(text).with_default_tag().familiar()
    except InvalidArgument:
        return text
