"""Make an image from one layer and a configuration: the common part of import and bootstrap."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from wherry.errors import WherryError
from wherry.images.archive_index import encode_document
from wherry.images.store import ImageStore
from wherry.model import oci
from wherry.model.digest import Digest
from wherry.model.images import Image
from wherry.model.oci import Descriptor, History, ImageConfig, ImageRunConfig, Manifest, Platform, RootFS
from wherry.model.reference import Reference
from wherry.storage import streams
from wherry.storage.confined.unpack import Unpacker
from wherry.storage.leases import Lease
from wherry.storage.streams import Readable

_PIECE = 1 << 20
_LAYER_TYPES = {streams.PLAIN: oci.LAYER, streams.GZIP: oci.LAYER_GZIP, streams.ZSTD: oci.LAYER_ZSTD}


@dataclass(frozen=True)
class Recipe:
    """The image's description of itself. ``created`` is RFC 3339."""

    created: str
    created_by: str = ""
    comment: str = ""
    author: str | None = None
    config: ImageRunConfig = field(default_factory=ImageRunConfig)
    platform: Platform = field(default_factory=oci.host)


def import_rootfs(
    store: ImageStore,
    unpacker: Unpacker,
    stream: Readable,
    ref: Reference | None,
    *,
    message: str = "",
    changes: ImageRunConfig | None = None,
    platform: Platform | None = None,
) -> Image:
    """Make an image of one layer from a tar of a root file system (plain, gzip, zstd, bzip2, xz).

    :raises InvalidArgument: the tar is broken or hostile. :raises Unavailable: the disk is full.
    """
    recipe = Recipe(
        created=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        comment=message or "imported from -",
        config=changes or ImageRunConfig(),
        platform=platform or oci.host(),
    )
    return from_stream(store, unpacker, stream, ref, recipe, why="import")


def from_stream(
    store: ImageStore,
    unpacker: Unpacker,
    stream: Readable,
    ref: Reference | None,
    recipe: Recipe,
    *,
    why: str,
) -> Image:
    """Store a layer, unpack it, write its image and name it; after a failure nothing is kept."""
    head = streams.read_head(stream)
    rejoined = streams.Rejoined(head, stream)
    try:
        with store.leases.hold(why) as lease:
            compression = streams.detect(head)
            if compression in _LAYER_TYPES:
                layer = _ingest(store, rejoined, _LAYER_TYPES[compression], lease)
            else:
                with unpacker.decompress(rejoined) as plain:
                    layer = _ingest(store, plain, oci.LAYER, lease)
            diff_id = _commit_layer(store, layer.digest, lease)
            target = _write_image(store, layer, diff_id, recipe, lease)
            store.add(target)
    except WherryError:
        store.collect()
        raise
    if ref is not None:
        store.tag(ref, target, why=why)
    return store.resolve(target.digest)


def _ingest(store: ImageStore, stream: Readable, media_type: str, lease: Lease) -> Descriptor:
    with store.content.ingest() as writer:
        while piece := stream.read(_PIECE):
            writer.write(piece)
        size = writer.offset
        digest = writer.commit(media_type=media_type, lease=lease.id)
    return Descriptor(media_type=media_type, digest=digest, size=size)


def _commit_layer(store: ImageStore, digest: Digest, lease: Lease) -> Digest:
    """Unpack a lowest layer whose diff id is not known yet; its chain id is the diff id."""
    prepared = store.layers.prepare(digest).result()
    lease.keep_snapshot(prepared.unpacked.diff_id)
    store.layers.adopt(prepared)
    return prepared.unpacked.diff_id


def _write_image(
    store: ImageStore, layer: Descriptor, diff_id: Digest, recipe: Recipe, lease: Lease
) -> Descriptor:
    config = ImageConfig(
        created=recipe.created,
        author=recipe.author,
        architecture=recipe.platform.architecture,
        os=recipe.platform.os,
        variant=recipe.platform.variant,
        config=recipe.config,
        rootfs=RootFS(diff_ids=[diff_id]),
        history=[
            History(
                created=recipe.created, created_by=recipe.created_by or None, comment=recipe.comment or None
            )
        ],
    )
    config_data = msgspec.json.encode(config)
    config_digest = store.content.put(config_data, oci.CONFIG, lease=lease.id)
    manifest = Manifest(
        media_type=oci.MANIFEST,
        config=Descriptor(media_type=oci.CONFIG, digest=config_digest, size=len(config_data)),
        layers=[layer],
    )
    data = encode_document(manifest)
    digest = store.content.put(data, oci.MANIFEST, lease=lease.id)
    return Descriptor(media_type=oci.MANIFEST, digest=digest, size=len(data))
