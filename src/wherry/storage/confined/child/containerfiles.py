"""The confined child that reads and writes a container's files.

Run as ``python -I -S -c … FD ROLE VIEW …``: descriptor 0 is the archive to extract, 1 the archive made, FD a
pipe for its results, in frames. It imports everything it will need, makes the container's files its root,
gives up all other rights, and only then reads the first hostile byte. So no program, library or module of the
container is ever loaded (CVE-2019-14271), and the decompressors are our own (CVE-2026-41567).

Frames, fields separated by NUL: ``stat``, name, size, mode (Go's bits), mtime (ns), link target; then one of
``ok``, ``bad`` and a clause, ``refused`` and a sentence, ``readonly`` and ``rootfs`` or ``mount``,
``not-directory``, ``ended``, ``os``, errno and clause. Before the end of the role ``changes`` come frames
``changes``, then kind and path of many.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable

from wherry.errors import InvalidArgument
from wherry.linux import confine, users
from wherry.linux import containerroot as roots
from wherry.linux.containerroot import Inside, LayerMounts, Point, Root, RootGone
from wherry.linux.pychild import send_frame
from wherry.model.mount import Mount
from wherry.model.tarformat import Buffered, TarLimits, TarReader
from wherry.storage.confined.child.archive import FoundPath, TarStream, TreeArchive
from wherry.storage.confined.child.changes import changes
from wherry.storage.confined.child.decompress import Decompressed, ReadAhead
from wherry.storage.confined.child.extract import Extractor, PipedSource, Refused
from wherry.storage.confined.child.lockdown import (
    FINDS,
    READS,
    WRITES,
    begin,
    failure,
    give_up,
    standard_input,
)
from wherry.storage.streams import PLAIN

_FILES = 64
_PIECE = 1 << 20
_ST_RDONLY = 1
_CHANGES = 1024
_GO_TYPES = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}


def main(arguments: list[str]) -> None:
    """Arguments: ``FD``, then one of ``stat|read VIEW PATH TRAILING``, ``export VIEW [NEWEST]``,
    ``changes VIEW``, and ``write VIEW PATH KEEP-KINDS [WHOLE [OWNER]]``."""
    begin()
    result_fd, role, view, *rest = arguments
    say = int(result_fd)
    try:
        _ROLES[role](say, view, *rest)
        result: tuple[bytes, ...] = (b"ok",)
    except Refused as e:
        result = (b"refused", str(e).encode("utf-8", "replace"))
    except _Stopped as e:
        result = e.fields
    except RootGone:
        result = (b"ended",)
    except BaseException as e:
        result = failure(e, "archive")
    send_frame(say, *result)
    os._exit(0)


class _Stopped(Exception):
    def __init__(self, *fields: bytes) -> None:
        super().__init__()
        self.fields = fields


def _enter(view: str, keep: tuple[int, ...]) -> Root:
    """Make the container's files the root, and give up all other rights."""
    spec = json.loads(view)
    descriptors = roots.own_descriptors()
    os.umask(0)
    if "pidfd" in spec:
        roots.enter_process(Inside(**spec))
        os.close(spec["pidfd"])
    else:
        layer = LayerMounts(
            Mount.of_fields(spec["mount"]),
            [Point(d, Mount.of_fields(m), *rest) for d, m, *rest in spec["points"]],
            writable=spec["writable"],
            readonly=spec["readonly"],
        )
        try:
            roots.enter_layer(layer)
        except FileNotFoundError:
            if spec["root"]:
                raise RootGone from None  # the task's directory was removed meanwhile
            raise
        if spec["root"]:
            roots.confirm_root(*spec["root"])
    root = Root(descriptors)
    give_up(keep, files=_FILES)
    return root


def _stat(say: int, view: str, path: str, trailing: str) -> None:
    root = _enter(view, READS)
    confine.deny_system_calls()
    _say_stat(say, FoundPath(root, path, trailing))


def _read(say: int, view: str, path: str, trailing: str) -> None:
    root = _enter(view, READS)
    confine.deny_system_calls()
    found = FoundPath(root, path, trailing)
    _say_stat(say, found)
    out = TarStream(1)
    TreeArchive(root, out).write(found)
    out.end()


def _export(_say: int, view: str, newest: str = "") -> None:
    root = _enter(view, READS)
    confine.deny_system_calls()
    out = TarStream(1)
    TreeArchive(root, out, one_file_system=True, newest=int(newest) if newest else None).write_bare(root.fd)
    out.end()


def _say_stat(say: int, found: FoundPath) -> None:
    status = found.status
    mode = stat.S_IMODE(status.st_mode) & 0o777 | _GO_TYPES.get(stat.S_IFMT(status.st_mode), 0)
    for bit, go in ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20)):
        mode |= go if status.st_mode & bit else 0
    numbers = (str(n).encode() for n in (status.st_size, mode, status.st_mtime_ns))
    send_frame(say, b"stat", os.fsencode(found.name), *numbers, os.fsencode(found.target))


def _write(say: int, view: str, path: str, keep_kinds: str, whole: str = "0", owner: str = "") -> None:
    read, compression = standard_input()
    stream = None
    if compression != PLAIN:
        stream = Decompressed(read, compression, TarLimits().unpacked_max, hashed=False)
    root = _enter(view, WRITES)
    try:
        top = root.find(path, os.O_DIRECTORY)
    except NotADirectoryError:
        raise _Stopped(b"not-directory") from None
    if os.fstatvfs(top).f_flag & _ST_RDONLY:
        same = os.fstat(top).st_dev == os.fstat(root.fd).st_dev
        raise _Stopped(b"readonly", b"rootfs" if same else b"mount")
    user = None
    if owner:
        try:
            user = users.lookup(root.fd, owner)
        except InvalidArgument as e:
            raise Refused(e.message) from e
    # after the root is final: a thread shares it; but before the filter, which allows no new threads
    piped = None
    if stream is not None:
        next_piece = ReadAhead(stream.next_piece).next_piece
    else:
        next_piece = lambda: read(_PIECE)  # noqa: E731
        piped = PipedSource(0, next_piece)
    confine.deny_system_calls()
    reader = TarReader(piped or Buffered(next_piece), TarLimits(), whole=whole == "1")
    ids = (user.uid, user.gid) if user is not None else None
    Extractor(root, top, reader, piped, keep_kinds=keep_kinds == "1", owner=ids).run()
    while next_piece():
        pass  # the client also sends what follows the archive's end


def _changes(say: int, view: str) -> None:
    mount = Mount.of_fields(json.loads(view)["mount"])
    upper = next(o.removeprefix("upperdir=") for o in mount.options if o.startswith("upperdir="))
    files = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=roots.apart(upper))
    descriptors = roots.own_descriptors()
    confine.new_namespaces()
    roots.enter_image(upper, mount.options)
    root = Root(descriptors)
    give_up(FINDS, files=_FILES)
    confine.deny_system_calls()
    found = changes(files, root.fd)
    for start in range(0, len(found), _CHANGES):
        send_frame(say, b"changes", *(field for pair in found[start : start + _CHANGES] for field in pair))


_ROLES: dict[str, Callable[..., None]] = {
    "stat": _stat,
    "read": _read,
    "export": _export,
    "write": _write,
    "changes": _changes,
}
