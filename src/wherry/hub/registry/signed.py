"""Enforces rules of kind ``signed``: an image can be pulled only if it has a valid signature."""

from __future__ import annotations

import time
from collections import OrderedDict

from wherry import threads
from wherry.hub.core import manifests as documents
from wherry.hub.core import rights, signatures
from wherry.hub.core.refusals import Refusal
from wherry.hub.registry.context import Ask
from wherry.hub.store import content, manifests, repositories
from wherry.hub.store.manifests import Referrer, StoredManifest
from wherry.hub.store.objects import Full, ObjectLost
from wherry.hub.store.rules import RetentionRule
from wherry.hub.store.sql import Tx

_LIFE = 30.0
"""Seconds for which a successful verification is cached."""
_KNOWN_MAX = 10_000
_MOST = 50
"""The largest number of signatures that are checked for one image."""
_verifying = threads.Pool("hub-verify", 2)
_known: OrderedDict[tuple[str, str, int], float] = OrderedDict()


async def require(ask: Ask, found: StoredManifest, guards: list[RetentionRule]) -> None:
    """:param guards: the repository's rules of this kind.

    :raises Refusal: ``DENIED``: a rule requires a signature, and the image has none by the rule's key.

    Accounts that can push are exempt, because they sign. Manifests with a subject (signatures, SBOMs) need no
    signature themselves.
    """
    tag = "" if ":" in ask.reference else ask.reference
    needed = [rule for rule in guards if rule.concerns(tag)]
    if not needed or tag.endswith((".sig", ".att", ".sbom")):
        return
    if documents.parse(found.body, found.media_type).subject:
        return
    allowed = await ask.hub.db.read(lambda tx: repositories.allowed_to(tx, ask.caller, ask.name))
    if rights.PUSH in allowed:
        return
    if not tag and await ask.hub.db.read(lambda tx: manifests.has_signature_tag(tx, found)):
        return
    for rule in needed:
        if not await _is_signed(ask, found, rule):
            raise Refusal(
                "DENIED",
                f"rule {rule.id} requires a signature for {ask.name}, and {found.digest} has none by its key",
                detail={"digest": found.digest, "rule": rule.id},
            )


async def _is_signed(ask: Ask, found: StoredManifest, rule: RetentionRule) -> bool:
    key = ask.name, found.digest, rule.id
    if _known.get(key, 0.0) > time.monotonic():
        return True
    # A signature of an index also covers its members.
    digests = [found.digest, *await ask.hub.db.read(lambda tx: manifests.parents(tx, found.id))]
    for digest in digests[:_MOST]:
        places = await ask.hub.db.read(lambda tx, d=digest: _candidates(tx, ask.name, d))  # type: ignore[misc]
        for place in places[:_MOST]:
            if await _signs(ask, place, digest, rule.key):
                _known[key] = time.monotonic() + _LIFE
                while len(_known) > _KNOWN_MAX:
                    _known.popitem(last=False)
                return True
    return False


def _candidates(tx: Tx, name: str, digest: str) -> list[StoredManifest]:
    """Manifests that may hold a signature of an image."""
    found = []
    if (by_tag := manifests.by_tag(tx, name, signatures.tag_of(digest))) is not None:
        found.append(by_tag)
    refers: list[Referrer] = manifests.referrers(tx, repositories.needed(tx, name), digest, "", 0, _MOST)
    for one in refers:
        stored = manifests.by_digest(tx, name, one.digest)
        if stored is not None:
            found.append(stored)
    return found


async def _signs(ask: Ask, place: StoredManifest, digest: str, key: str) -> bool:
    for layer in documents.layers(place.body)[:_MOST]:
        kind, notes = layer.get("mediaType"), layer.get("annotations")
        said = notes.get(signatures.SIGNATURE) if isinstance(notes, dict) else None
        signature = said if isinstance(said, str) else ""
        if kind != signatures.BUNDLE and not signature:
            continue
        payload = await _content(ask, str(layer.get("digest", "")))
        if kind == signatures.BUNDLE:
            right = await _verifying(signatures.bundle_signs, payload, digest, key)
        else:
            right = await _verifying(signatures.signs, payload, signature, digest, key)
        if right:
            return True
    return False


async def _content(ask: Ask, digest: str) -> bytes:
    """The content of a small blob; empty if the blob is missing or too large."""
    blob = await ask.hub.db.read(lambda tx: content.find(tx, ask.name, digest))
    if blob is None or not 0 < blob.size <= signatures.SIZE_MAX:
        return b""
    try:
        return b"".join([piece async for piece in ask.hub.objects.read(blob.key, 0, blob.size - 1)])
    except (ObjectLost, Full):
        return b""
