"""Referrers of images (signatures, SBOMs, provenance): fetched by a pull, sent by a push.

They are stored as content of the image they refer to, and are removed with it. An error with one of them
never fails a pull: the image does not depend on them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from wherry.errors import InvalidArgument, NotFound
from wherry.images.store import ImageStore
from wherry.model import oci
from wherry.model.digest import Digest
from wherry.model.documents import decode_document
from wherry.model.oci import Descriptor, Manifest
from wherry.registry import referrers
from wherry.registry.errors import RegistryError
from wherry.registry.push import Pusher
from wherry.registry.repository import Repository
from wherry.registry.resolve import fetch_child
from wherry.storage.leases import Lease

log = logging.getLogger(__name__)

REFERRER, PART = "referrer", "referrer-part"
"""The roles under which they are recorded in the image's content."""
_PART_MAX = 64 << 20
_TOTAL_MAX = 256 << 20
"""The most bytes that are fetched without being asked for: of one blob, and of all together."""


async def fetch(
    images: ImageStore,
    source: Repository,
    subjects: Iterable[Digest],
    lease: Lease,
    blob: Callable[[Descriptor], Awaitable[None]],
) -> list[tuple[Digest, str]]:
    """Fetch the referrers of ``subjects`` into the content store; returns their digests and roles.

    :param blob: fetches one, under ``lease``.
    """
    content: list[tuple[Digest, str]] = []
    room = _TOTAL_MAX
    for subject in dict.fromkeys(subjects):
        try:
            listed = await referrers.listed(source, subject)
        except RegistryError as e:
            log.info("cannot ask %s for what refers to %s: %s", source.host, subject, e)
            continue
        for descriptor in listed:
            try:
                found = await fetch_child(source, descriptor)
                document = found.document
                if not isinstance(document, Manifest) or document.subject is None:
                    continue
                parts = [p for p in (document.config, *document.layers) if not p.urls]
                needed = sum(p.size for p in parts)
                fits = all(0 <= p.size <= _PART_MAX for p in parts) and needed <= room
                if document.subject.digest != subject or not fits:
                    log.info("referrer %s of %s is left out", descriptor.digest, subject)
                    continue
                images.content.put(found.data, descriptor.media_type, lease=lease.id)
                for part in parts:
                    await blob(part)
            except RegistryError as e:
                log.info("cannot fetch what refers to %s: %s", subject, e)
                continue
            room -= needed
            content += [(descriptor.digest, REFERRER), *((p.digest, PART) for p in parts)]
    return content


def kept(images: ImageStore, target: Digest) -> list[tuple[Descriptor, Manifest, bytes]]:
    """The referrers of an image that are here completely."""
    found = []
    for digest in images.rows.content_with(target, REFERRER):
        try:
            data = images.content.read(digest, limit=oci.MANIFEST_SIZE_MAX)
            document = decode_document(data, oci.MANIFEST)
        except (NotFound, InvalidArgument):
            continue
        assert isinstance(document, Manifest)
        if all(images.content.has(part.digest) for part in (document.config, *document.layers)):
            descriptor = Descriptor(
                media_type=oci.MANIFEST,
                digest=digest,
                size=len(data),
                artifact_type=document.artifact_type or document.config.media_type,
                annotations=document.annotations,
            )
            found.append((descriptor, document, data))
    return found


async def push(
    pusher: Pusher,
    repository: Repository,
    kept: Sequence[tuple[Descriptor, Manifest, bytes]],
    sent: set[Digest],
) -> None:
    """Send the referrers of the manifests in ``sent``.

    :raises RegistryError: the registry refuses.
    """
    for descriptor, document, data in kept:
        if document.subject is None or document.subject.digest not in sent:
            continue
        for part in (document.config, *document.layers):
            await pusher.blob(part)
        known = await pusher.manifest(descriptor.digest, descriptor, data)
        if known:
            continue
        # The registry has no referrers API.
        subject = document.subject.digest
        index = await referrers.with_referrer(repository, subject, descriptor)
        if index is not None:
            await pusher.manifest(referrers.tag_of(subject), referrers.index_descriptor(index), index)
