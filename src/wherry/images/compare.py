"""Compare two images: layers, configuration, packages, files.

The files are taken from the layers' directories, merged by the rules of overlayfs. Nothing is mounted, and no
file of an image is followed or run. Content is read only if it can differ: a file from a common layer is the
same.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wherry.images.store import ImageStore
from wherry.linux import syscalls as sys
from wherry.linux import trees
from wherry.model.base import to_builtins
from wherry.model.comparison import Comparison, FileChange, LayerSize, PackageChange, ValueChange
from wherry.model.images import Image
from wherry.storage.snapshots import Snapshotter

_BENEATH = sys.RESOLVE_BENEATH | sys.RESOLVE_NO_SYMLINKS | sys.RESOLVE_NO_XDEV
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE = 1 << 20
_DATABASE_MAX = 64 << 20
_DPKG, _DPKG_PARTS, _APK = b"var/lib/dpkg/status", b"var/lib/dpkg/status.d/", b"lib/apk/db/installed"


@dataclass(frozen=True)
class _File:
    """A path in an image: the layer's directory that contains it, and its lstat(2)."""

    root: Path
    status: os.stat_result

    @property
    def size(self) -> int:
        return self.status.st_size if stat.S_ISREG(self.status.st_mode) else 0


_Tree = dict[bytes, _File]


def compare(store: ImageStore, a: Image, b: Image) -> Comparison:
    """The differences between ``a`` and ``b``. Layers are unpacked if necessary.

    :raises NotFound: a layer is gone. :raises InvalidArgument: a layer cannot be unpacked.
    """
    with store.leases.hold("compare") as lease:
        for image in (a, b):
            for chain in image.chain_ids:
                lease.keep_snapshot(chain)
            store.ensure_unpacked(image)
        shared = 0
        for mine, theirs in zip(a.chain_ids, b.chain_ids, strict=False):
            if mine != theirs:
                break
            shared += 1
        snapshotter = store.layers.snapshotter
        common = _merged(snapshotter, {}, a.chain_ids[:shared])
        before = _merged(snapshotter, dict(common), a.chain_ids[shared:])
        after = _merged(snapshotter, dict(common), b.chain_ids[shared:])
        layers = [_layers(snapshotter, image) for image in (a, b)]
        return Comparison(
            shared=layers[0][:shared],
            only_before=layers[0][shared:],
            only_after=layers[1][shared:],
            configuration=_values(_configuration(a), _configuration(b)),
            packages=_packages(before, after),
            files=sorted(_files(before, after), key=lambda change: change.path),
        )


def _layers(snapshotter: Snapshotter, image: Image) -> list[LayerSize]:
    return [
        LayerSize(diff_id, snapshotter.usage(chain).bytes)
        for diff_id, chain in zip(image.config.rootfs.diff_ids, image.chain_ids, strict=True)
    ]


def _merged(snapshotter: Snapshotter, tree: _Tree, chain: tuple[Any, ...]) -> _Tree:
    """``tree`` with layers on top of it, lowest first."""
    for name in chain:
        root, parent = snapshotter.directories(name)
        if parent is not None:
            tree = {}  # with a driver of whole trees, it contains everything below it
        tree = _laid(tree, root, list(trees.walk(root)))
    return tree


def _laid(tree: _Tree, root: Path, entries: Sequence[tuple[bytes, os.stat_result]]) -> _Tree:
    """One layer on top of a tree. One pass, regardless of the number of whiteouts."""
    hidden, hollow, added = set(), set(), {}
    for path, status in entries:
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            hidden.add(path)
            continue
        added[path] = _File(root, status)
        known = tree.get(path)
        was_directory = known is not None and stat.S_ISDIR(known.status.st_mode)
        if was_directory and (not stat.S_ISDIR(status.st_mode) or _opaque(root, path)):
            hollow.add(path)
    if hidden or hollow:
        gone = hidden | hollow
        tree = {
            path: file
            for path, file in tree.items()
            if path not in hidden and not any(above in gone for above in _above(path))
        }
    return tree | added


def _above(path: bytes) -> Iterator[bytes]:
    while path := path.rpartition(b"/")[0]:
        yield path


def _opaque(root: Path, path: bytes) -> bool:
    try:
        return (
            os.getxattr(os.fsencode(root) + b"/" + path, b"trusted.overlay.opaque", follow_symlinks=False)
            == b"y"
        )
    except OSError:
        return False


def _files(before: _Tree, after: _Tree) -> Iterator[FileChange]:
    for path, old in before.items():
        new = after.get(path)
        if new is None:
            yield FileChange(_text(path), "removed", old.size, 0)
        elif not _same(path, old, new):
            yield FileChange(_text(path), "changed", old.size, new.size)
    for path, new in after.items():
        if path not in before:
            yield FileChange(_text(path), "added", 0, new.size)


def _text(path: bytes) -> str:
    return "/" + path.decode(errors="backslashreplace")


def _same(path: bytes, a: _File, b: _File) -> bool:
    """Compare kind, mode, owner and content; the modification time does not count."""
    x, y = a.status, b.status
    if (x.st_dev, x.st_ino) == (y.st_dev, y.st_ino):
        return True
    if (x.st_mode, x.st_uid, x.st_gid, x.st_rdev, a.size) != (
        y.st_mode,
        y.st_uid,
        y.st_gid,
        y.st_rdev,
        b.size,
    ):
        return False
    if stat.S_ISLNK(x.st_mode):
        return os.readlink(os.fsencode(a.root) + b"/" + path) == os.readlink(
            os.fsencode(b.root) + b"/" + path
        )
    return not stat.S_ISREG(x.st_mode) or _hash(a.root, path) == _hash(b.root, path)


def _pieces(root: Path, path: bytes) -> Iterator[bytes]:
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = sys.openat2(top, os.fsdecode(path), _OPEN, resolve=_BENEATH)
    finally:
        os.close(top)
    try:
        while piece := os.read(fd, _PIECE):
            yield piece
    finally:
        os.close(fd)


def _hash(root: Path, path: bytes) -> bytes:
    found = hashlib.sha256()
    for piece in _pieces(root, path):
        found.update(piece)
    return found.digest()


# configuration


def _configuration(image: Image) -> dict[str, str]:
    """Every setting as text; environment and labels one by one."""
    found = {"Architecture": str(image.config.platform)}
    for key, value in to_builtins(image.config.config).items():
        if key == "Env":
            found |= {
                f"Env {name}": text for name, _, text in (entry.partition("=") for entry in value or ())
            }
        elif isinstance(value, dict):
            found |= {f"{key} {name}": _plain(one) for name, one in value.items()}
        else:
            found[key] = _plain(value)
    return found


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(f'"{one}"' for one in value) + "]"
    return "" if value in (None, {}) else str(value)


def _values(before: Mapping[str, str], after: Mapping[str, str]) -> list[ValueChange]:
    return [
        ValueChange(key, before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


# packages


def _packages(before: _Tree, after: _Tree) -> list[PackageChange]:
    if all(before.get(path) == after.get(path) for path in (_DPKG, _APK)) and not any(
        path.startswith(_DPKG_PARTS) for path in (*before, *after)
    ):
        return []
    old, new = _installed(before), _installed(after)
    return [
        PackageChange(name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _installed(tree: _Tree) -> dict[str, str]:
    """Name (with the architecture, for dpkg) -> version, from the databases of dpkg and apk."""
    found: dict[str, str] = {}
    for path in [_DPKG, *(path for path in tree if path.startswith(_DPKG_PARTS))]:
        for fields in _stanzas(tree, path, ": "):
            installed = "Status" not in fields or fields["Status"].endswith(" installed")
            if "Package" in fields and "Version" in fields and installed:
                found[f"{fields['Package']}:{fields.get('Architecture', '')}"] = fields["Version"]
    for fields in _stanzas(tree, _APK, ":"):
        if "P" in fields and "V" in fields:
            found[fields["P"]] = fields["V"]
    return found


def _stanzas(tree: _Tree, path: bytes, separator: str) -> Iterator[dict[str, str]]:
    file = tree.get(path)
    if file is None or not stat.S_ISREG(file.status.st_mode) or file.size > _DATABASE_MAX:
        return
    fields: dict[str, str] = {}
    for line in [*b"".join(_pieces(file.root, path)).decode(errors="replace").split("\n"), ""]:
        if line:
            key, found, value = line.partition(separator)
            if found and not key.startswith(" "):
                fields.setdefault(key, value)
        elif fields:
            yield fields
            fields = {}


@dataclass(frozen=True)
class Software:
    """An installed package: ``kind`` as in package URLs (``deb``, ``apk``, ``pypi``)."""

    kind: str
    name: str
    version: str
    architecture: str = ""


def software(snapshotter: Snapshotter, snapshot: str | None) -> list[Software]:
    """The packages that package managers list in a snapshot and its parents, sorted.

    :raises NotFound: no such snapshot.
    """
    chain: list[str] = []
    while snapshot is not None:
        chain.append(snapshot)
        snapshot = snapshotter.stat(snapshot).parent
    tree = _merged(snapshotter, {}, tuple(reversed(chain)))
    found: set[Software] = set()
    for name, version in _installed(tree).items():
        package, colon, architecture = name.partition(":")
        found.add(Software("deb" if colon else "apk", package, version, architecture))
    for path in tree:
        if path.endswith((b".dist-info/METADATA", b".egg-info/PKG-INFO")):
            fields = next(_stanzas(tree, path, ":"), {})
            if "Name" in fields and "Version" in fields:
                found.add(Software("pypi", fields["Name"].strip(), fields["Version"].strip()))
    return sorted(found, key=lambda one: (one.kind, one.name, one.version))
