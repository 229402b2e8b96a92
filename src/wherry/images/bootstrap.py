"""Base images without a registry, built from the distribution's packages.

``busybox``, ``hello``, ``debian[:suite[-slim]]``, ``python:<minor>-slim``, ``node:<major>-slim``. Fast if the
image exists already. Reproducible if the packages are the same: archives are sorted, and all files have one
time (``SOURCE_DATE_EPOCH``, else the package's).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from wherry.errors import InvalidArgument, NotFound
from wherry.images import busybox, debian, hello, languages
from wherry.images.assemble import Recipe, from_stream
from wherry.images.debiansteps import megabytes
from wherry.images.store import ImageStore
from wherry.model import oci, reference
from wherry.model.images import Image
from wherry.model.oci import ImageRunConfig
from wherry.model.reference import Reference
from wherry.model.tarwriter import TarMember, archive
from wherry.storage.confined.unpack import Unpacker

NAMES = ("busybox", "debian", "hello", "node", "python")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_EPOCH = 1_700_000_000
_NANO = 1_000_000_000

Progress = Callable[[dict[str, object]], None]


def bootstrap(
    store: ImageStore,
    unpacker: Unpacker,
    name: str,
    *,
    progress: Progress = lambda message: None,
    mirror: str | None = None,
    variant: str | None = None,
    force: bool = False,
    scratch: Path | None = None,
) -> Image:
    """Make a base image, or find the existing one.

    :param name: ``busybox``, ``hello``, ``debian``, ``debian:<suite>``, ``debian:<suite>-slim``,
        ``python:<minor>-slim`` or ``node:<major>-slim``.
    :param mirror: of Debian packages, instead of the host's. :param variant: ``slim`` (debian only).
    :param force: build it again. :param scratch: the working directory, instead of ``/tmp``.
    :raises InvalidArgument: no such base image. :raises Unavailable: its packages cannot be fetched.
    """
    wanted = reference.parse(name)
    base = wanted.familiar_name
    if base not in NAMES or wanted.digest is not None:
        raise InvalidArgument(f"cannot bootstrap {name}: only {', '.join(NAMES)} can be made")
    if base in languages.LANGUAGES:
        if variant is not None:
            raise InvalidArgument(f"cannot bootstrap {name}: {base} has no variants")
        return _language(store, unpacker, wanted, progress, mirror=mirror, force=force, scratch=scratch)
    if base != "debian":
        if wanted.tag not in (None, "latest") or variant is not None or mirror is not None:
            raise InvalidArgument(f"cannot bootstrap {name}: {base} has no variants, suites or mirrors")
        return _simple(store, unpacker, wanted.with_default_tag(), progress, force=force)
    return _debian(
        store, unpacker, wanted, progress, mirror=mirror, variant=variant, force=force, scratch=scratch
    )


def _simple(
    store: ImageStore, unpacker: Unpacker, ref: Reference, progress: Progress, *, force: bool
) -> Image:
    if not force and (found := _existing(store, ref)) is not None:
        progress({"status": f"{ref.familiar()} is there already"})
        return found
    progress({"status": f"Making {ref.familiar()}"})
    epoch = _epoch()
    architecture = oci.host().architecture
    if ref.familiar_name == "busybox":
        data = busybox.rootfs(epoch * _NANO)
        config = ImageRunConfig(cmd=["sh"], env=[_PATH])
    else:
        binary = hello.program(architecture)
        data = archive(
            [(TarMember(name=b"hello", mode=0o755, size=len(binary), mtime=epoch * _NANO), binary)]
        )
        config = ImageRunConfig(cmd=["/hello"], env=[_PATH])
    recipe = _recipe(f"wherry image bootstrap {ref.familiar_name}", epoch, config)
    return from_stream(store, unpacker, io.BytesIO(data), ref, recipe, why="bootstrap")


def _debian(
    store: ImageStore,
    unpacker: Unpacker,
    wanted: Reference,
    progress: Progress,
    *,
    mirror: str | None,
    variant: str | None,
    force: bool,
    scratch: Path | None,
) -> Image:
    if variant not in (None, "slim"):
        raise InvalidArgument(f"cannot bootstrap debian: unknown variant {variant!r}")
    tag = debian.DEFAULT_SUITE if wanted.tag in (None, "latest") else wanted.tag or ""
    slim = tag.endswith("-slim") or variant == "slim"
    suite = debian.check_suite(tag.removesuffix("-slim"))
    ref = wanted.with_tag(f"{suite}-slim" if slim else suite)
    also = [wanted.with_tag("latest")] if suite == debian.DEFAULT_SUITE and not slim else []
    if not force and (found := _existing(store, ref)) is not None:
        progress({"status": f"{ref.familiar()} is there already"})
        return found

    def stage(what: str) -> None:
        progress({"status": f"Making {ref.familiar()}: {what}"})

    epoch = _epoch()
    recipe = _recipe(
        f"wherry image bootstrap {ref.familiar()}", epoch, ImageRunConfig(cmd=["bash"], env=[_PATH])
    )
    with (
        debian.rootfs(suite, slim=slim, mirror=mirror, epoch=epoch, stage=stage, scratch=scratch) as path,
        path.open("rb") as stream,
    ):
        size = megabytes(path.stat().st_size)
        progress({"status": f"Making {ref.familiar()}: storing {size}"})
        image = from_stream(store, unpacker, stream, ref, recipe, why="bootstrap")
    for name in also:
        store.tag(name, image.id, why="bootstrap")
    return store.resolve(image.id)


def _language(
    store: ImageStore,
    unpacker: Unpacker,
    wanted: Reference,
    progress: Progress,
    *,
    mirror: str | None,
    force: bool,
    scratch: Path | None,
) -> Image:
    _, suite = languages.suite_of(wanted.familiar_name, wanted.tag)
    if not force and (found := _existing(store, wanted)) is not None:
        progress({"status": f"{wanted.familiar()} is there already"})
        return found
    system = reference.parse(f"debian:{suite}-slim")
    base = _debian(
        store, unpacker, system, progress, mirror=mirror, variant=None, force=False, scratch=scratch
    )
    epoch = _epoch()
    return languages.add(
        store,
        base,
        wanted,
        created=_created(epoch),
        epoch=epoch,
        mirror=mirror,
        stage=lambda what: progress({"status": f"Making {wanted.familiar()}: {what}"}),
    )


def _existing(store: ImageStore, ref: Reference) -> Image | None:
    try:
        return store.resolve(ref.familiar(), oci.host())
    except NotFound:
        return None


def _epoch() -> int:
    """Seconds: SOURCE_DATE_EPOCH (reproducible-builds.org) if it is set to a number."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(text) if text.isdigit() else _EPOCH


def _recipe(created_by: str, epoch: int, config: ImageRunConfig) -> Recipe:
    return Recipe(created=_created(epoch), created_by=created_by, config=config)


def _created(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).isoformat().replace("+00:00", "Z")
