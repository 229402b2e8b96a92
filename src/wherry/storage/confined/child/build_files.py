"""The confined child of builds: computes the checksum of a COPY's sources, copies them, receives contexts.

Run as ``python -I -S -c … FD ROLE …``; FD is a pipe for its results, in frames (see
:mod:`wherry.linux.pychild`). It mounts the given trees below its own root, which nobody else sees and which
ends with it. It gives up all other rights, and only then reads the first hostile byte.

    /d     the step's files, writable (roles copy, receive)
    /s0 …  the sources, read-only

Last frame: ``ok`` and fields of the role; or ``bad``, ``refused`` or ``missing`` and a clause; or ``os``,
errno and a clause.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

from wherry.errors import WherryError
from wherry.linux import confine, trees, users
from wherry.linux import containerroot as roots
from wherry.linux import syscalls as calls
from wherry.linux.mounts import mount
from wherry.linux.pychild import send_frame
from wherry.model import patterns
from wherry.model.mount import Mount
from wherry.model.tarformat import (
    BLOCK_DEVICE,
    CHARACTER,
    FILE,
    BadTar,
    Buffered,
    Entry,
    TarLimits,
    TarReader,
)
from wherry.storage.confined.child.copy import CopyTarget, parse_mode
from wherry.storage.confined.child.decompress import Decompressed
from wherry.storage.confined.child.extract import Extractor, Refused
from wherry.storage.confined.child.lockdown import READS, WRITES, begin, failure, give_up, standard_input
from wherry.storage.confined.child.trees import DirectoryTree, RootedTree
from wherry.storage.selection import DIRECTORY, NotThere, Wanted, checksum, has_patterns, select
from wherry.storage.streams import PLAIN, detect

_FILES = 256
_INERT = calls.MOUNT_ATTR_NOSUID | calls.MOUNT_ATTR_NODEV | calls.MOUNT_ATTR_NOEXEC
_BASE = "/proc"
_BATCH = 500


def main(arguments: list[str]) -> None:
    """``FD ROLE DOCUMENT-FD``; the document is JSON."""
    begin()
    say, role, document_fd = int(arguments[0]), arguments[1], int(arguments[2])
    with open(document_fd, "rb") as file:
        document = json.load(file)
    try:
        result = _ROLES[role](say, document)
    except (Refused, WherryError) as e:
        result = (b"refused", str(e).encode("utf-8", "replace"))
    except NotThere as e:
        result = (b"missing", str(e).encode("utf-8", "surrogateescape"))
    except BaseException as e:
        result = failure(e, "step")
    send_frame(say, *result)
    os._exit(0)


class _Inside:
    """The child's own root, with the trees in it."""

    def __init__(self, document: dict[str, Any], keep: tuple[int, ...]) -> None:
        if any(
            has_patterns(_wanted(part)) for part in document.get("parts", [document.get("wanted")]) if part
        ):
            patterns.load()
        self._descriptors = roots.own_descriptors()
        os.umask(0)
        confine.new_namespaces()
        calls.mount("none", _BASE, "tmpfs", 0, "size=4m,mode=0700")
        trees = [("d", document.get("destination"))]
        trees += [(f"s{n}", source) for n, source in enumerate(document.get("sources", ()))]
        for name, value in trees:
            if value is None:
                continue
            place = f"{_BASE}/{name}"
            os.mkdir(place, 0o700)
            mount(Mount.of_fields(value), place)
            attributes = _INERT | (0 if name == "d" else calls.MOUNT_ATTR_RDONLY)
            calls.mount_setattr(calls.AT_FDCWD, place, calls.AT_RECURSIVE, set_=attributes)
        calls.mount("none", _BASE, "none", calls.MS_BIND | calls.MS_REMOUNT | calls.MS_RDONLY)
        confine.enter_mounted_root(_BASE)
        give_up(keep, files=_FILES)
        confine.deny_system_calls()

    def place(self, name: str) -> RootedTree:
        return RootedTree(f"/{name}", self._descriptors)


def _wanted(fields: dict[str, Any]) -> Wanted:
    return Wanted(**fields)


def _checksum(_say: int, document: dict[str, Any]) -> tuple[bytes, ...]:
    inside = _Inside(document, READS)
    tree = DirectoryTree(inside.place("s0"))
    if "path" in document:  # everything at one path: a mount's source
        real = tree.find(os.fsencode(document["path"].strip("/")))
        node = None if real is None else tree.node(real)
        if real is None or node is None:
            raise NotThere(document["path"])
        names = "/" + os.fsdecode(real)
        wanted = Wanted([names], into=False)
        return (b"ok", checksum(tree, wanted, owners=True).encode(), b"d" if node.kind == DIRECTORY else b"f")
    return (b"ok", checksum(tree, _wanted(document["wanted"]), owners=document["owners"]).encode())


def _directory(_say: int, document: dict[str, Any]) -> tuple[bytes, ...]:
    """WORKDIR: make a directory if it is missing."""
    inside = _Inside(document, WRITES)
    place = inside.place("d")
    target = CopyTarget(place, owner=_owner(place, document["owner"]), mode=None, strict=False)
    os.close(target.make_directories(document["path"]))
    return (b"ok", b"1" if target.changed else b"0")


def _owner(place: RootedTree, text: str) -> tuple[int, int] | None:
    """``--chown``: a number alone is also used as the group; a name alone uses the user's own group."""
    if not text:
        return None
    user = users.lookup(place.fd, text)
    alone = ":" not in text and users.number(text) is not None
    return user.uid, user.uid if alone else user.gid


def _copy(_say: int, document: dict[str, Any]) -> tuple[bytes, ...]:
    _import_decompressors(document)
    inside = _Inside(document, WRITES)
    place = inside.place("d")
    owner = _owner(place, document["chown"])
    target = CopyTarget(
        place,
        owner=owner if owner is not None or document["owners"] else (0, 0),
        mode=parse_mode(document["chmod"]),
        strict=document["strict"],
    )
    into, destination = document["into"], document["path"]
    for number, (part, unpack) in enumerate(zip(document["parts"], document["unpack"], strict=True)):
        tree = DirectoryTree(inside.place(f"s{number}"))
        items = list(select(tree, _wanted(part)))
        kept = []
        for item in items:
            if (
                unpack
                and item.top
                and item.node.kind == "f"
                and _unpack(tree, item.source, target, document, place)
            ):
                continue
            kept.append(item)
        if items and not kept:
            continue
        target.copy(tree, kept, destination, into=into)
        if not items:
            made = destination if into else os.path.dirname(destination.rstrip("/"))
            os.close(target.make_directories(made))
    for name, content in document["files"]:
        target.write(
            content.encode("utf-8", "surrogateescape"), destination, name, into=into, mtime=document["mtime"]
        )
    return (b"ok", b"1" if target.changed else b"0")


def _import_decompressors(document: dict[str, Any]) -> None:
    """Import them now, while the file system is still visible."""
    if any(document["unpack"]):
        import bz2  # noqa: F401
        import lzma  # noqa: F401

        import isal.isal_zlib  # noqa: F401
        import zstandard  # noqa: F401


class _Owned(TarReader):
    """Members that get the owner of ``--chown``."""

    owner: tuple[int, int] | None = None

    def __iter__(self) -> Iterator[Entry]:
        for entry in super().__iter__():
            if self.owner is not None:
                entry.uid, entry.gid = self.owner
            yield entry


def _unpack(
    tree: DirectoryTree, source: bytes, target: CopyTarget, document: dict[str, Any], place: RootedTree
) -> bool:
    """Unpack an archive into the destination; ``False`` if it is not an archive."""
    fd = tree.open(source)
    try:
        head = os.pread(fd, 6, 0)
        compression = detect(head)
        if compression == PLAIN:
            block = os.pread(fd, 512, 0)
            if len(block) < 512 or block[257:262] != b"ustar":
                return False
        elif not _is_tar(fd, compression):
            return False
        os.lseek(fd, 0, os.SEEK_SET)
        size = os.fstat(fd).st_size
        read = Decompressed(
            lambda n: os.read(fd, n), compression, TarLimits().unpacked(size), hashed=False
        ).next_piece
        reader = _Owned(Buffered(read), TarLimits())
        reader.owner = _owner(place, document["chown"])
        top = target.make_directories(document["path"])
        try:
            target.changed = True
            Extractor(place, top, reader, None, keep_kinds=False, top_is_root=True).run()
        finally:
            os.close(top)
        return True
    finally:
        os.close(fd)


def _is_tar(fd: int, compression: str) -> bool:
    os.lseek(fd, 0, os.SEEK_SET)
    try:
        piece = Decompressed(lambda n: os.read(fd, n), compression, 1 << 40, hashed=False).next_piece()
    except BadTar:
        return False
    return len(piece) >= 512 and piece[257:262] == b"ustar"


class _Hashed(TarReader):
    """Records the facts of every member, with the sha256 of its bytes."""

    def note(self, say: int) -> None:
        self._say = say
        self._notes: list[bytes] = []
        self._hash = hashlib.sha256()

    def __iter__(self) -> Iterator[Entry]:
        for entry in super().__iter__():
            self._hash = hashlib.sha256()
            if entry.sparse is not None:
                self._hash.update(b"%d %r" % (entry.real_size, entry.sparse))
            if entry.type in (CHARACTER, BLOCK_DEVICE):
                raise Refused("device nodes are no part of a build context")
            entry.uid = entry.gid = 0  # root's: the client machine's users mean nothing in an image
            yield entry
            self._add(entry)
        self._flush()

    def data(self) -> Iterator[bytes | memoryview]:
        for piece in super().data():
            self._hash.update(piece)
            yield piece

    def _add(self, entry: Entry) -> None:
        self._notes += [
            entry.name,
            entry.type,
            b"%o" % entry.mode,
            b"%d" % entry.real_size,
            b"%d" % entry.mtime,
            entry.linkname,
            self._hash.hexdigest().encode() if entry.type == FILE else b"",
        ]
        if len(self._notes) >= 7 * _BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._notes:
            send_frame(self._say, b"entries", *self._notes)
            self._notes = []


def _receive(say: int, document: dict[str, Any]) -> tuple[bytes, ...]:
    """Receive a context as a tar on descriptor 0, after removing what is obsolete."""
    read, compression = standard_input()
    next_piece: Callable[[], bytes] = lambda: read(1 << 20)  # noqa: E731
    if compression != PLAIN:
        next_piece = Decompressed(read, compression, TarLimits().unpacked_max, hashed=False).next_piece
    inside = _Inside(document, WRITES)
    place = inside.place("d")
    for path in document["gone"]:
        _remove(place, os.fsencode(path))
    reader = _Hashed(Buffered(next_piece), TarLimits())
    reader.note(say)
    Extractor(place, place.fd, reader, None, keep_kinds=False).run()
    while next_piece():
        pass
    return (b"ok",)


def _remove(place: RootedTree, path: bytes) -> None:
    head, _, name = path.rpartition(b"/")
    try:
        above = roots.find(
            place.fd,
            os.fsdecode(head),
            os.O_RDONLY | os.O_DIRECTORY,
            calls.RESOLVE_BENEATH | calls.RESOLVE_NO_SYMLINKS,
        )
    except OSError:
        return
    try:
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
            try:
                trees.clear(fd)
            finally:
                os.close(fd)
            os.rmdir(name, dir_fd=above)
        else:
            os.unlink(name, dir_fd=above)
    except FileNotFoundError:
        pass
    finally:
        os.close(above)


_ROLES: dict[str, Callable[[int, dict[str, Any]], tuple[bytes, ...]]] = {
    "checksum": _checksum,
    "directory": _directory,
    "copy": _copy,
    "receive": _receive,
}
