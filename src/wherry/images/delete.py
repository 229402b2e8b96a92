"""Removing images by Docker's rules and in Docker's words.

By name: other names left, only the name goes; the last name goes with the image. By id: all or nothing. A
running container holds its image always, a stopped one unless forced; forcing by name then leaves the image
without one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wherry.errors import Conflict, InvalidArgument
from wherry.images.store import ImageStore
from wherry.model import digest as digests
from wherry.model import reference
from wherry.model.digest import Digest
from wherry.model.images import Deleted, DiskUsage, ImageSummary, Untagged, Users
from wherry.model.reference import Reference

Removal = Untagged | Deleted
_SHORT = 12


def delete(store: ImageStore, text: str, *, force: bool = False, users: Users) -> list[Removal]:
    """Remove a name or an image, and what only it kept.

    :raises Conflict: it is in use; the text says by what, and whether force would help.
    :raises NotFound: no such image.
    """
    target = store.find(text).digest
    names = store.rows.names_of(target)
    by_name = None if _is_id(text, target) else reference.parse(text)
    if by_name is not None:
        mine = _same(by_name, names)
        if not mine:
            by_name = None  # the digest of a part of it
        elif len(mine) < len(names):
            return [_untag(store, name) for name in mine]
        elif (user := next(iter(users(target)), None)) is not None:
            if not force:
                raise _conflict(
                    by_name.with_default_tag().familiar(),
                    f"container {user.container[:_SHORT]} is using its referenced image {_short(target)}",
                    hard=False,
                )
            return [_untag(store, name) for name in names]
    return _delete_all(store, target, names, users, force=force, by_id=by_name is None)


def _delete_all(
    store: ImageStore, target: Digest, names: list[str], users: Users, *, force: bool, by_id: bool
) -> list[Removal]:
    using = list(users(target))
    for state, hard in (("running", True), ("stopped", False)):
        user = next((u for u in using if u.running == hard), None)
        if user is not None and (hard or not force):
            message = f"image is being used by {state} container {user.container[:_SHORT]}"
            raise _conflict(_short(target), message, hard=hard)
    if by_id and not force and len(names) > 1:
        raise _conflict(_short(target), "image is referenced in multiple repositories", hard=False)
    removed: list[Removal] = [_untag(store, name) for name in names]
    store.rows.delete(target)
    store.collect()
    return [*removed, Deleted(target)]


def prune(
    store: ImageStore,
    *,
    users: Users,
    dangling: bool = True,
    keep: Callable[[ImageSummary], bool] = lambda image: False,
    until: int | None = None,
) -> tuple[list[Removal], int]:
    """Remove unused images; return what went and the bytes freed.

    :param dangling: only those without a name. :param keep: the engine's label filter.
    :param until: seconds since the epoch; only images created before.
    """
    before = disk_usage(store).total
    removed: list[Removal] = []
    for image in store.list():
        if (dangling and not image.dangling) or keep(image) or next(iter(users(image.id)), None) is not None:
            continue
        if until is not None and image.created >= until:
            continue
        removed += [_untag(store, name) for name in store.rows.names_of(image.id)]
        store.rows.delete(image.id)
        removed.append(Deleted(image.id))
    store.leases.forget_unfinished()
    store.collect()
    return removed, max(0, before - disk_usage(store).total)


def disk_usage(store: ImageStore) -> DiskUsage:
    """What all images hold together."""
    return DiskUsage(store.rows.layers_total(store.layers.snapshotter.name))


def _untag(store: ImageStore, name: str) -> Untagged:
    parsed = reference.parse(name)
    store.rows.move(name, None, actor="", why="untag")
    return Untagged(parsed.familiar())


def _is_id(text: str, target: Digest) -> bool:
    hex_part = text.removeprefix("sha256:")
    if target.startswith(text) or digests.hex_of(target).startswith(hex_part):
        return True
    try:
        reference.parse(text)
    except InvalidArgument:
        return True
    return False


def _same(wanted: Reference, names: Sequence[str]) -> list[str]:
    """The names a reference means: the one with its tag, or with a digest all of its repository."""
    if wanted.digest is None:
        return [name for name in names if name == str(wanted.with_default_tag())]
    return [name for name in names if reference.parse(name).name == wanted.name]


def _short(target: Digest) -> str:
    return digests.hex_of(target)[:_SHORT]


def _conflict(shown: str, message: str, *, hard: bool) -> Conflict:
    force = "cannot be forced" if hard else "must be forced"
    return Conflict(f"conflict: unable to delete {shown} ({force}) - {message}")
