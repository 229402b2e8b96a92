"""Manifests: reading by tag or digest, pushing, deleting."""

from __future__ import annotations

from aiohttp import web

from wherry import threads
from wherry.hub.core import digests, names
from wherry.hub.core import manifests as documents
from wherry.hub.core.refusals import Refusal
from wherry.hub.registry import signed
from wherry.hub.registry.answers import COMMON, SANDBOX, empty
from wherry.hub.registry.bodies import read
from wherry.hub.registry.context import Ask
from wherry.hub.registry.proxying import Served, unknown
from wherry.hub.store import events, manifests, repositories, rules, tags
from wherry.hub.store.manifests import Push
from wherry.hub.store.rules import RetentionRule
from wherry.hub.store.sql import Broken, Tx

TAGS_MAX = 50
"""Tags of one PUT; the specification wants at least 10."""
_LARGE = 64 << 10
"""Larger manifests are decoded on a thread, because that takes milliseconds."""
_TRIES = 3
_parsing = threads.Pool("hub-parse", 2)


def _reference(text: str) -> str:
    """A digest or a tag; only a digest contains a colon.

    :raises Refusal: ``DIGEST_INVALID``; a tag of the wrong form is ``TAG_INVALID``.
    """
    return digests.check(text) if ":" in text else names.check_tag(text)


async def get(ask: Ask) -> web.StreamResponse:
    """GET and HEAD of a manifest. The stored bytes are sent: they are never converted into another format."""
    address = ask.hub.trusted.client(ask.request)
    limited = ask.hub.limits.take(ask.caller, address, 0 if ask.request.method == "HEAD" else 1)
    served, guards = await _find(ask)
    found = served.stored
    await signed.require(ask, found, guards)
    headers = {
        **limited,
        **COMMON,
        **SANDBOX,
        "Content-Type": found.media_type,
        "Docker-Content-Digest": found.digest,
        "ETag": f'"{found.digest}"',
        **({"Warning": served.warning} if served.warning else {}),
    }
    if ask.request.method == "HEAD":
        return web.Response(headers={**headers, "Content-Length": str(len(found.body))})
    agent = ask.request.headers.get("User-Agent", "")
    ask.hub.counters.pulled(
        found.repository, "" if ":" in ask.reference else ask.reference, found.digest, agent
    )
    if f'"{found.digest}"' in ask.request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    return web.Response(body=found.body, headers=headers)


async def _find(ask: Ask) -> tuple[Served, list[RetentionRule]]:
    """The manifest, and the rules that require signatures of it.

    :raises Refusal: ``MANIFEST_UNKNOWN``, or ``NAME_UNKNOWN``.
    """
    name, reference = ask.name, ask.reference
    if ":" in reference:
        digests.check(reference)
    elif not names.is_tag(reference):
        raise unknown(reference)  # a tag of the wrong form does not exist; only a PUT of it is a mistake
    find = manifests.by_digest if ":" in reference else manifests.by_tag
    found, guards = await ask.hub.db.read(lambda tx: (find(tx, name, reference), rules.signed(tx, name)))
    if found is not None:
        return Served(found), guards
    proxy = await ask.hub.proxies.of(name)
    if proxy is not None:
        return await ask.hub.proxies.manifest(proxy, name, reference), guards
    there = await ask.hub.db.read(lambda tx: repositories.find(tx, name))
    raise unknown(reference) if there else repositories.unknown(name)


async def put(ask: Ask) -> web.StreamResponse:
    """PUT of a manifest under a tag or its digest, optionally with further tags (``?tag=``, several)."""
    hub, reference = ask.hub, _reference(ask.reference)
    wanted = ask.request.query.getall("tag", [])
    if len(wanted) > TAGS_MAX:
        raise Refusal("TAG_INVALID", f"more than {TAGS_MAX} tags in one request", status=414)
    by_digest = ":" in reference
    if wanted and not by_digest:
        raise Refusal("TAG_INVALID", "tags beside a tag: push by digest to set several")
    tagged = [names.check_tag(tag) for tag in dict.fromkeys(wanted)] if by_digest else [reference]
    body = await read(ask.request, documents.SIZE_MAX, "MANIFEST_INVALID")
    kind = ask.request.headers.get("Content-Type", "")
    manifest = await _parsed(body, kind)
    digest = digests.of(body, digests.algorithm_of(reference) if by_digest else digests.CANONICAL)
    if by_digest and digest != reference:
        raise Refusal(
            "DIGEST_INVALID", "provided digest did not match uploaded content", detail={"digest": reference}
        )
    push = Push(ask.name, digest, manifest, body, tagged, ask.account, ask.caller.name)
    address = hub.trusted.client(ask.request)

    def write(tx: Tx) -> None:
        manifests.put(tx, push, hub.settings)
        events.note(
            tx, ask.caller.name, address, "manifest.push", ask.name,
            digest=digest, tags=tagged, media_type=manifest.media_type,
        )  # fmt: skip

    for attempt in range(_TRIES):
        try:
            await hub.db.write(write)
            break
        except Broken:
            # The collector has removed something meanwhile: the next check names what is missing.
            if attempt == _TRIES - 1:
                raise
    response = empty(201, Location=f"/v2/{ask.name}/manifests/{digest}", Docker_Content_Digest=digest)
    if manifest.subject:
        response.headers["OCI-Subject"] = manifest.subject
    for tag in tagged if by_digest else ():
        response.headers.add("OCI-Tag", tag)
    return response


async def _parsed(body: bytes, kind: str) -> documents.ParsedManifest:
    if len(body) < _LARGE:
        return documents.parse(body, kind)
    return await _parsing(documents.parse, body, kind)


async def delete(ask: Ask) -> web.StreamResponse:
    """DELETE of a tag, or of a manifest with all its tags. Both can be restored for a while."""
    hub, reference = ask.hub, _reference(ask.reference)
    address = hub.trusted.client(ask.request)

    def write(tx: Tx) -> bool:
        if ":" in reference:
            gone = manifests.delete(tx, ask.name, reference, ask.caller.name, hub.settings)
        else:
            gone = tags.delete(tx, ask.name, reference, ask.caller.name, hub.settings)
        if gone:
            action = "manifest.delete" if ":" in reference else "tag.delete"
            events.note(tx, ask.caller.name, address, action, ask.name, reference=reference)
        return gone

    if not await hub.db.write(write):
        raise unknown(reference)
    return empty(202)
