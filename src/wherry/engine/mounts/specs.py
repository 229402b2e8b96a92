"""Parse users' mount options (``-v``, ``--mount``, ``--tmpfs``, VOLUME) into resolved mount points.

Nothing is created here: volumes are only named, and host paths are only checked.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence

from msgspec.structs import replace

from wherry.errors import InvalidArgument
from wherry.model.container import BindOptions, HostConfig, MountPoint, MountSpec

_PROPAGATIONS = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}
_CONSISTENCY = {"consistent", "cached", "delegated", "default", ""}
_TMPFS_FLAGS = {
    "defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "remount",
    "mand", "nomand", "atime", "noatime", "diratime", "nodiratime", "bind", "rbind", "unbindable",
    "runbindable", "private", "rprivate", "shared", "rshared", "slave", "rslave", "relatime", "norelatime",
    "strictatime", "nostrictatime",
}  # fmt: skip
_TMPFS_KEYS = {"mode", "size", "nr_blocks", "nr_inodes", "uid", "gid"}


def resolve(
    host: HostConfig,
    image_volumes: Sequence[str],
    config_volumes: Sequence[str],
    *,
    readonly_recursive: bool = True,
) -> list[MountPoint]:
    """Every mount of a new container, binds before image volumes; each destination appears once.

    :param readonly_recursive: the default for read-only binds: whether mounts below them become read-only
    too.

    :raises InvalidArgument: a malformed specification or a duplicate destination.
    """
    points: dict[str, MountPoint] = {}

    def add(point: MountPoint) -> None:
        if point.destination in points:
            raise InvalidArgument(f"Duplicate mount point: {point.destination}")
        if point.type == "bind" and not readonly_recursive:
            point = replace(point, options=[option for option in point.options if option != "rro"])
        points[point.destination] = point

    for text in host.binds or ():
        add(parse_bind(text, default_driver=host.volume_driver))
    for spec in host.mounts or ():
        add(from_spec(spec))
    for destination, options in (host.tmpfs or {}).items():
        add(_tmpfs(destination, options))
    for destination in (*config_volumes, *image_volumes):
        cleaned = _destination(destination, destination)
        if cleaned not in points:
            points[cleaned] = MountPoint(
                type="volume",
                destination=cleaned,
                driver=host.volume_driver,
                anonymous=True,
                copy_up=True,
            )
    return list(points.values())


def parse_bind(text: str, *, default_driver: str = "") -> MountPoint:
    """``[source:]destination[:options]``; a source without a leading slash names a volume."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts[:2]):
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return MountPoint(
            type="volume",
            destination=_destination(parts[0], text),
            driver=default_driver,
            anonymous=True,
            copy_up=True,
        )
    kind = "bind" if parts[0].startswith("/") else "volume"
    source, destination = parts[0], _destination(parts[1], text, kind)
    mode = parts[2] if len(parts) == 3 else ""
    writable, copy, propagation = _parse_mode(mode)
    if not source.startswith("/"):
        if propagation:
            raise _bad_specification(text, "volume", "field BindOptions must not be specified")
        return MountPoint(
            type="volume",
            name=source,
            destination=destination,
            driver=default_driver,
            mode=mode or "z",
            rw=writable,
            copy_up=copy,
        )
    if "nocopy" in mode.split(","):
        raise _bad_specification(text, "bind", "field VolumeOptions must not be specified")
    return MountPoint(
        type="bind",
        source=posixpath.normpath(source),
        destination=destination,
        mode=mode,
        rw=writable,
        propagation=propagation or "rprivate",
        options=["create-source"] if writable else ["create-source", "rro"],
    )


def _bad_specification(text: str, kind: str, reason: str) -> InvalidArgument:
    return InvalidArgument(f"invalid volume specification: '{text}': {_invalid(kind, reason).message}")


def _parse_mode(mode: str) -> tuple[bool, bool, str]:
    writable, copy, propagation = True, True, ""
    access_seen = label_seen = False
    for word in filter(None, mode.split(",")):
        if word in ("ro", "rw"):
            if access_seen:
                raise InvalidArgument(f"invalid mode: {mode}")
            writable, access_seen = word == "rw", True
        elif word == "nocopy":
            copy = False
        elif word in _PROPAGATIONS and not propagation:
            propagation = word
        elif word in ("z", "Z"):
            if label_seen:
                raise InvalidArgument(f"invalid mode: {mode}")
            label_seen = True
        elif word not in _CONSISTENCY:
            raise InvalidArgument(f"invalid mode: {mode}")
    return writable, copy, propagation


def _destination(path: str, text: str, kind: str = "volume") -> str:
    if not path.startswith("/"):
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\": "
            f"invalid mount path: '{path}' mount path must be absolute"
        )
    # normpath keeps a leading double slash, because POSIX allows it a special meaning.
    cleaned = "/" + posixpath.normpath(path).lstrip("/")
    if cleaned == "/":
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\": "
            "invalid specification: destination can't be '/'"
        )
    return cleaned


def from_spec(spec: MountSpec) -> MountPoint:
    """One ``--mount``, resolved. :raises InvalidArgument: malformed, with Docker's message."""
    if not spec.target:
        raise _invalid(spec.type, "field Target must not be empty")
    if not spec.target.startswith("/"):
        raise _invalid(spec.type, f"invalid mount path: '{spec.target}' mount path must be absolute")
    destination = "/" + posixpath.normpath(spec.target).lstrip("/")
    if destination == "/":
        raise _invalid(spec.type, "invalid specification: destination can't be '/'")
    _check_members(spec)
    if spec.owner and (spec.owner != "match" or spec.type not in ("bind", "volume")):
        raise _invalid(spec.type, f"invalid owner {spec.owner!r}: match is known, of binds and volumes")
    if spec.type == "bind":
        return _bind(spec, destination)
    if spec.type == "volume":
        return _volume(spec, destination)
    if spec.type == "tmpfs":
        if spec.source:
            raise _invalid("tmpfs", "field Source must not be specified")
        return _tmpfs(destination, _tmpfs_options(spec), read_only=spec.read_only)
    return _image(spec, destination)


_MEMBERS = {
    "bind": ("BindOptions",),
    "volume": ("VolumeOptions",),
    "tmpfs": ("TmpfsOptions",),
    "image": ("ImageOptions",),
}
"""The options that a mount of each type may have."""


def _check_members(spec: MountSpec) -> None:
    """:raises InvalidArgument: an unknown type, or options of another type, with Docker's message."""
    if spec.type not in _MEMBERS:
        raise _invalid(spec.type, "mount type unknown")
    given = {
        "BindOptions": spec.bind_options,
        "VolumeOptions": spec.volume_options,
        "TmpfsOptions": spec.tmpfs_options,
        "ImageOptions": spec.image_options,
    }
    for name, value in given.items():
        if value is not None and name not in _MEMBERS[spec.type]:
            raise _invalid(spec.type, f"field {name} must not be specified")


def _invalid(kind: str, reason: str) -> InvalidArgument:
    return InvalidArgument(f'invalid mount config for type "{kind}": {reason}')


def _bind(spec: MountSpec, destination: str) -> MountPoint:
    options = spec.bind_options
    if options is not None and options.read_only_force_recursive:
        _check_forced(spec, options)
    if not spec.source:
        raise _invalid("bind", "field Source must not be empty")
    if not spec.source.startswith("/"):
        raise _invalid("bind", f"invalid mount path: '{spec.source}' mount path must be absolute")
    create = options is not None and options.create_mountpoint
    if not create and not os.path.lexists(spec.source):
        raise _invalid("bind", f"bind source path does not exist: {spec.source}")
    propagation = (options.propagation if options else "") or "rprivate"
    if propagation not in _PROPAGATIONS:
        raise _invalid("bind", f"invalid propagation mode: {propagation}")
    extra = ["create-source"] if create else []
    if spec.read_only and not (options is not None and options.read_only_non_recursive):
        extra.append("rro")
    return MountPoint(
        type="bind",
        source=posixpath.normpath(spec.source),
        destination=destination,
        rw=not spec.read_only,
        propagation=propagation,
        recursive=not (options is not None and options.non_recursive),
        options=extra,
        owner=spec.owner,
    )


def _check_forced(spec: MountSpec, options: BindOptions) -> None:
    """Check ``bind-recursive=readonly``, with Docker's message."""
    if not spec.read_only:
        raise _invalid(
            "bind", 'option "ReadOnlyForceRecursive" requires "ReadOnly" to be specified in conjunction'
        )
    if options.propagation != "rprivate":
        raise _invalid(
            "bind",
            'option "ReadOnlyForceRecursive" requires Propagation to be set to "rprivate" in conjunction',
        )


def _volume(spec: MountSpec, destination: str) -> MountPoint:
    options = spec.volume_options
    driver = options.driver_config if options and options.driver_config else None
    subpath = _subpath("volume", options.subpath if options is not None else "")
    if subpath and not spec.source:
        raise _invalid("volume", "must not set Subpath when using anonymous volumes")
    return MountPoint(
        type="volume",
        name=spec.source,
        destination=destination,
        driver=driver.name if driver else "",
        mode="z",
        rw=not spec.read_only,
        copy_up=not (options is not None and options.no_copy),
        anonymous=not spec.source,
        subpath=subpath,
        labels=(options.labels if options is not None else None) or {},
        driver_options=(driver.options if driver is not None else None) or {},
        owner=spec.owner,
    )


def _image(spec: MountSpec, destination: str) -> MountPoint:
    """Images are always mounted read-only, as in Docker ("Image mounts")."""
    if not spec.source:
        raise _invalid("image", "field Source must not be empty")
    subpath = spec.image_options.subpath if spec.image_options is not None else ""
    return MountPoint(
        type="image",
        source=spec.source,
        destination=destination,
        rw=False,
        subpath=_subpath("image", subpath),
        options=["rro"],
    )


def _subpath(kind: str, path: str) -> str:
    """A relative path without a way out. The kernel resolves links in it at the start of the container."""
    if not path:
        return ""
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise _invalid(kind, "subpath must be a relative path within the volume")
    return posixpath.normpath(path)


def _tmpfs_options(spec: MountSpec) -> str:
    options = spec.tmpfs_options
    words = []
    if options is not None:
        if options.size_bytes < 0:
            raise _invalid("tmpfs", f"invalid tmpfs size: {options.size_bytes}")
        if options.size_bytes:
            words.append(f"size={options.size_bytes}")
        if options.mode:
            words.append(f"mode={options.mode & 0o7777:o}")
        words += [_tmpfs_option(pair) for pair in options.options or ()]
    return ",".join(words)


def _tmpfs_option(pair: list[str]) -> str:
    """One of ``TmpfsOptions.Options``. Size, mode and owner have members of their own, or none."""
    if not 1 <= len(pair) <= 2:
        raise _invalid("tmpfs", "invalid option array length")
    if pair[0] not in ("exec", "noexec") or len(pair) > 1:
        raise _invalid("tmpfs", f"invalid option: {pair[0]}")
    return pair[0]


def _tmpfs(destination: str, options: str, *, read_only: bool = False) -> MountPoint:
    cleaned = _destination(destination, destination)
    words = [w for w in options.split(",") if w and w != "defaults"]
    for word in words:
        key, equals, _value = word.partition("=")
        if not (key in _TMPFS_KEYS if equals else key in _TMPFS_FLAGS):
            raise InvalidArgument(f'invalid tmpfs option "{word}"')
    if read_only:
        words.append("ro")
    return MountPoint(type="tmpfs", destination=cleaned, rw="ro" not in words, options=words)
