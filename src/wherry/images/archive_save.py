"""``docker save``: the combined archive, an OCI layout that old versions of Docker can read too.

    blobs/sha256/<hex>    all blobs of the images that are here, each once, by digest
    index.json            the targets, with their names as annotations
    manifest.json         one entry per image for this host, as in docker archives
    oci-layout

Equal images give equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from wherry.errors import InvalidArgument, NotFound
from wherry.images.archive_index import IMAGE_NAME, REF_NAME, encode_document
from wherry.images.store import ImageStore
from wherry.model import digest as digests
from wherry.model import oci, reference, tarwriter
from wherry.model.digest import Digest
from wherry.model.images import Image
from wherry.model.oci import Descriptor, Index, Platform
from wherry.model.reference import Reference
from wherry.model.tarformat import DIRECTORY
from wherry.model.tarwriter import TarMember
from wherry.storage.diff import Writable
from wherry.storage.verify import Verifier

_PIECE = 1 << 20


@dataclass(frozen=True)
class Saved:
    """One thing to save: ``image`` for this host if there is one, ``name`` if it was requested by name."""

    target: Descriptor
    image: Image | None
    name: Reference | None


def save(
    store: ImageStore,
    refs: Sequence[str],
    out: Writable,
    *,
    platforms: Sequence[Platform] = (),
    saved: Callable[[Digest], None] = lambda target: None,
) -> None:
    """Write images to ``out``. A repository without a tag means all its tags; an id means no name.

    :param platforms: only these; if it is a single one, its manifest becomes the target. :param saved: called
        with each target.
    :raises NotFound: no such image, or it lacks a platform. :raises InvalidArgument: an invalid reference.
    :raises Internal: a blob is damaged; the end of the archive is missing then, so it is not valid.
    """
    chosen = choose(store, refs, platforms)
    save_chosen(store, chosen, out, platforms=platforms)
    for target in dict.fromkeys(item.target.digest for item in chosen):
        saved(target)


def save_chosen(
    store: ImageStore, chosen: Sequence[Saved], out: Writable, *, platforms: Sequence[Platform] = ()
) -> None:
    """As :func:`save`, for images that were looked up already."""
    with store.leases.hold("save") as lease:
        blobs: dict[Digest, None] = {}
        for item in chosen:
            for digest in _blobs(store, item.target, platforms):
                if store.content.keep(digest, lease.id):
                    blobs[digest] = None
        _directories(out, ("blobs/", "blobs/sha256/"))
        for digest in sorted(blobs):
            _blob(store, digest, out)
        _file(out, "index.json", _index(chosen))
        _file(out, "manifest.json", _docker_manifest(chosen))
        _file(out, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        out.write(tarwriter.END)


def choose(store: ImageStore, refs: Sequence[str], platforms: Sequence[Platform] = ()) -> list[Saved]:
    """The images that :func:`save` writes. Raises the same errors."""
    return [item for ref in refs for item in _choose(store, ref, platforms)]


def _choose(store: ImageStore, ref: str, platforms: Sequence[Platform]) -> list[Saved]:
    names = _repository_tags(store, ref)
    if names:
        return [_one(store, name.familiar(), name, platforms) for name in names]
    target = store.find(ref)
    try:
        name = reference.parse(ref)
    except InvalidArgument:
        name = None
    by_id = (
        name is None or name.digest is not None or store.rows.target_of(str(name.with_default_tag())) is None
    )
    return [_one(store, target.digest if by_id else ref, None if by_id else name, platforms)]


def _repository_tags(store: ImageStore, ref: str) -> list[Reference]:
    """Every name of a repository, if ``ref`` is a bare one."""
    if digests.is_digest(ref):
        return []
    try:
        wanted = reference.parse(ref)
    except InvalidArgument:
        return []
    if wanted.tag or wanted.digest:
        return []
    names = [reference.parse(name) for name, _ in store.rows.names()]
    return [name for name in names if name.name == wanted.name and name.tag]


def _one(store: ImageStore, ref: str, name: Reference | None, platforms: Sequence[Platform]) -> Saved:
    target = store.find(ref)
    if name is not None:
        name = name.with_default_tag()
    images = [store.resolve(ref, platform) for platform in platforms]
    if len(images) == 1:
        return Saved(_own_target(images[0]), images[0], name)
    try:
        image = images[0] if images else store.resolve(ref)
    except NotFound:
        return Saved(target, None, name)
    return Saved(target, image, name)


def _own_target(image: Image) -> Descriptor:
    """The image's own manifest, without an index's annotations."""
    own = image.manifest_descriptor
    return Descriptor(media_type=own.media_type, digest=own.digest, size=own.size)


def _blobs(store: ImageStore, target: Descriptor, platforms: Sequence[Platform]) -> Iterable[Digest]:
    roles, _ = store.graph.closure(target)
    if len(platforms) < 2:
        return roles
    wanted: set[Digest] = {digest for digest, role in roles.items() if role in ("index", "other")}
    for image in store.graph.manifests(target):
        if any(image.platform.satisfies(platform) for platform in platforms):
            wanted |= {image.descriptor.digest, image.manifest.config.digest}
            wanted |= {layer.digest for layer in image.manifest.layers}
    return wanted


def _index(chosen: Iterable[Saved]) -> bytes:
    entries = []
    for item in chosen:
        entry = item.target
        if item.name is not None:
            named = {IMAGE_NAME: str(item.name), REF_NAME: item.name.tag or ""}
            annotations = {**(entry.annotations or {}), **named}
            entry = msgspec.structs.replace(entry, annotations=annotations)
        entries.append(entry)
    return encode_document(Index(media_type=oci.INDEX, manifests=entries))


def _docker_manifest(chosen: Iterable[Saved]) -> bytes:
    entries: dict[Digest, dict[str, Any]] = {}
    for item in chosen:
        if item.image is None:
            continue
        image = item.image
        entry = entries.setdefault(
            image.manifest_descriptor.digest,
            {
                "Config": _path(image.config_descriptor.digest),
                "RepoTags": None,
                "Layers": [_path(layer.digest) for layer in image.manifest.layers],
            },
        )
        if item.name is not None:
            entry["RepoTags"] = [*(entry["RepoTags"] or ()), item.name.familiar()]
    return msgspec.json.encode(list(entries.values()))


def _path(digest: Digest) -> str:
    return f"blobs/sha256/{digests.hex_of(digest)}"


def _directories(out: Writable, names: Iterable[str]) -> None:
    for name in names:
        out.write(tarwriter.header(TarMember(name=name.encode(), type=DIRECTORY, mode=0o755)))


def _file(out: Writable, name: str, data: bytes) -> None:
    header = tarwriter.header(TarMember(name=name.encode(), size=len(data)))
    out.write(header + data + tarwriter.padding(len(data)))


def _blob(store: ImageStore, digest: Digest, out: Writable) -> None:
    size = store.content.size(digest)
    out.write(tarwriter.header(TarMember(name=_path(digest).encode(), mode=0o444, size=size)))
    verifier = Verifier(digest, size)
    with store.content.open(digest) as blob:
        while piece := blob.read(_PIECE):
            verifier.update(piece)
            out.write(piece)
    verifier.check()
    out.write(tarwriter.padding(size))
