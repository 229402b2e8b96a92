"""Remove images by Docker's rules and with Docker's messages.

By name: if the image has other names, only this name is removed; with its last name the image is removed. By
id: all or nothing. A running container always keeps its image, a stopped one unless forced; with force,
removal by name then leaves the image without a name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.images.graph import PlatformImage
from wherry.images.store import ImageStore
from wherry.model import digest as digests
from wherry.model import reference
from wherry.model.digest import Digest
from wherry.model.images import Deleted, DiskUsage, ImageSummary, ImageUser, Untagged, Users
from wherry.model.oci import Platform, parse_platform
from wherry.model.reference import Reference

Removal = Untagged | Deleted
_SHORT = 12


def delete(store: ImageStore, text: str, *, force: bool = False, users: Users) -> list[Removal]:
    """Remove a name or an image, and everything that only it needed.

    :raises Conflict: it is in use; the text says by what, and whether force would help.
    :raises NotFound: no such image.
    """
    target = store.find(text).digest
    names = store.rows.names_of(target)
    by_name = None if _is_id(text, target) else reference.parse(text)
    if by_name is not None:
        mine = _same(by_name, names)
        if not mine:
            by_name = None  # the digest of one of its parts
        elif len(mine) < len(names):
            return _untag(store, target, mine)
        elif (user := next(iter(users(target)), None)) is not None:
            if not force:
                raise _conflict(
                    by_name.with_default_tag().familiar(),
                    f"container {user.container[:_SHORT]} is using its referenced image {_short(target)}",
                    hard=False,
                )
            return _untag(store, target, names)
    return _delete_all(store, target, names, users, force=force, by_id=by_name is None)


def _delete_all(
    store: ImageStore, target: Digest, names: list[str], users: Users, *, force: bool, by_id: bool
) -> list[Removal]:
    _refuse_in_use(target, list(users(target)), force=force)
    if by_id and not force and len(names) > 1:
        raise _conflict(_short(target), "image is referenced in multiple repositories", hard=False)
    labels = store.labels(target)
    removed = _untag(store, target, names)
    store.rows.delete(target)
    store.collect()
    return [*removed, Deleted(target, labels)]


def _refuse_in_use(target: Digest, using: Sequence[ImageUser], *, force: bool) -> None:
    for state, hard in (("running", True), ("stopped", False)):
        user = next((u for u in using if u.running == hard), None)
        if user is not None and (hard or not force):
            message = f"image is being used by {state} container {user.container[:_SHORT]}"
            raise _conflict(_short(target), message, hard=hard)


def delete_platforms(
    store: ImageStore, text: str, platforms: Sequence[Platform], *, force: bool = False, users: Users
) -> list[Removal]:
    """Remove what only some platforms of an image need; its names and its index stay.

    If the image is for one platform and has no index, all of it is removed.

    :raises Conflict: a container uses it for one of these platforms. :raises NotFound: it lacks one of them.
    """
    target = store.find(text)
    here = [m for m in store.graph.manifests(target) if m.config is not None and not m.is_attestation]
    chosen: dict[Digest, PlatformImage] = {}
    for platform in platforms:
        matching = [image for image in here if image.platform.satisfies(platform)]
        if not matching:
            raise NotFound(
                f"image with reference {text} was found but does not provide the specified platform "
                f"({platform})"
            )
        chosen.update((image.descriptor.digest, image) for image in matching)
    if target.digest in chosen:
        return delete(store, text, force=force, users=users)
    using = [
        user
        for user in users(target.digest)
        if not user.platform
        or any(image.platform.satisfies(parse_platform(user.platform)) for image in chosen.values())
    ]
    _refuse_in_use(target.digest, using, force=force)
    left = [image for image in here if image.descriptor.digest not in chosen]
    store.drop_unwanted(target.digest, [image.descriptor.digest for image in left])
    kept = {chain for image in left for chain in image.chain_ids}
    gone = {chain for image in chosen.values() for chain in image.chain_ids} - kept
    store.rows.forget_snapshots(target.digest, gone)
    store.collect()
    labels = {digest: image.config.config.labels for digest, image in chosen.items() if image.config}
    return [Deleted(digest, labels.get(digest) or {}) for digest in chosen]


def prune(
    store: ImageStore,
    *,
    users: Users,
    dangling: bool = True,
    keep: Callable[[ImageSummary], bool] = lambda image: False,
    until: int | None = None,
) -> tuple[list[Removal], int]:
    """Remove unused images; returns what was removed, and the bytes freed.

    :param dangling: only those without a name. :param keep: the engine's label filter.
    :param until: seconds since the epoch; only images created before.
    """
    before = disk_usage(store).total
    removed: list[Removal] = []
    for image in store.list():
        if (dangling and not image.dangling) or keep(image):
            continue
        if until is not None and image.created >= until:
            continue
        using = list(users(image.id))
        if using:
            removed += _untag(store, image.id, _spare_names(store.rows.names_of(image.id), using))
            continue
        removed += _untag(store, image.id, store.rows.names_of(image.id))
        store.rows.delete(image.id)
        removed.append(Deleted(image.id, image.labels))
    store.leases.forget_unfinished()
    store.collect()
    return removed, max(0, before - disk_usage(store).total)


def disk_usage(store: ImageStore, targets: Collection[Digest] | None = None) -> DiskUsage:
    """The bytes that all images (or ``targets``) use together."""
    return DiskUsage(store.rows.layers_total(store.layers.snapshotter.name, targets))


def _spare_names(names: Sequence[str], using: Sequence[ImageUser]) -> list[str]:
    """The names of a used image that no container refers to. If all are referred to, as with an id: none."""
    used = {name for name in names if any(name == _full(user.name) for user in using)}
    return [name for name in names if name not in used] if used else []


def _full(name: str) -> str:
    try:
        return str(reference.parse(name).with_default_tag())
    except InvalidArgument:
        return name


def _untag(store: ImageStore, target: Digest, names: Sequence[str]) -> list[Removal]:
    labels = store.labels(target)
    for name in names:
        store.rows.move(name, None, actor="", why="untag")
    return [Untagged(reference.parse(name).familiar(), target, labels) for name in names]


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
    """The names that a reference means: the one with its tag, or for a digest all names of its repository."""
    if wanted.digest is None:
        return [name for name in names if name == str(wanted.with_default_tag())]
    return [name for name in names if reference.parse(name).name == wanted.name]


def _short(target: Digest) -> str:
    return digests.hex_of(target)[:_SHORT]


def _conflict(shown: str, message: str, *, hard: bool) -> Conflict:
    force = "cannot be forced" if hard else "must be forced"
    return Conflict(f"conflict: unable to delete {shown} ({force}) - {message}")
