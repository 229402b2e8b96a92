"""Tags and images: deleted, reverted, restored, locked in time."""

from __future__ import annotations

from wherry.errors import InvalidArgument
from wherry.hub.core import digests, names, rights
from wherry.hub.core.refusals import Refusal
from wherry.hub.service import who
from wherry.hub.service.who import HubCaller
from wherry.hub.store import manifests, tags
from wherry.hub.store.sql import Tx, now


def delete(tx: Tx, caller: HubCaller, name: str, tag: str) -> None:
    """:raises Refusal:"""
    who.manageable(tx, caller, name)
    if not tags.delete(tx, name, tag, caller.name, caller.settings):
        raise Refusal("MANIFEST_UNKNOWN", f"{name} has no tag {tag}")
    caller.note(tx, "tag.delete", name, reference=tag)


def revert(tx: Tx, caller: HubCaller, name: str, tag: str, digest: str) -> None:
    """Point a tag to an image that it had before, or that any tag of the repository had: if that was deleted,
    it is restored.

    :raises Refusal:
    """
    who.writable(tx, caller, name)
    names.check_tag(tag)
    digests.check(digest)
    if who.may(tx, caller, name, rights.DELETE):
        manifests.undelete(tx, name, digest)
    tags.revert(tx, name, tag, digest, caller.account, caller.name, caller.settings)
    caller.note(tx, "tag.revert", name, reference=tag, digest=digest)


def delete_image(tx: Tx, caller: HubCaller, name: str, digest: str) -> None:
    """Delete an image and all its tags. :raises Refusal:"""
    who.manageable(tx, caller, name)
    if not manifests.delete(tx, name, digest, caller.name, caller.settings):
        raise Refusal("MANIFEST_UNKNOWN", f"{name} has no image {digest}")
    caller.note(tx, "manifest.delete", name, reference=digest)


def undelete_image(tx: Tx, caller: HubCaller, name: str, digest: str) -> None:
    """:raises Refusal: there is no such deleted image."""
    who.manageable(tx, caller, name)
    if not manifests.undelete(tx, name, digest):
        raise Refusal("MANIFEST_UNKNOWN", f"{name} has no deleted image {digest}")
    caller.note(tx, "manifest.undelete", name, reference=digest)


def expire(tx: Tx, caller: HubCaller, name: str, tag: str, days: int | None) -> None:
    """Delete a tag in this many days; None: keep it. :raises Refusal: :raises InvalidArgument:"""
    who.manageable(tx, caller, name)
    if days is not None and not 0 < days <= 3650:
        raise InvalidArgument("days: use 1 to 3650")
    tags.expire(tx, name, tag, now() + days * 86400 if days is not None else None)
    caller.note(tx, "tag.expire", name, reference=tag, days=days)


def copy(tx: Tx, caller: HubCaller, name: str, tag: str, more: str) -> None:
    """Give the image of a tag another tag as well. :raises Refusal:"""
    who.writable(tx, caller, name)
    found = manifests.by_tag(tx, name, tag)
    if found is None:
        raise Refusal("MANIFEST_UNKNOWN", f"{name} has no tag {tag}")
    row = who.readable(tx, caller, name).row
    tags.move(
        tx, row, names.check_tag(more), found.id, found.digest, caller.account, caller.name, "retag",
        caller.settings,
    )  # fmt: skip
    caller.note(tx, "tag.copy", name, reference=more, source=tag)
