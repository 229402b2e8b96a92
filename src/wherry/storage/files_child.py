"""The confined child that reads and writes a container's files.

Run as ``python -I -S -c … FD ROLE VIEW …`` with descriptor 0 the archive to extract, 1 the archive made, and
FD a pipe for what it has to say, in frames. It imports all it will ever need, takes the container's files as
its root, gives up everything else, and only then looks at the first hostile byte: no program, library or
module of the container's is ever loaded (CVE-2019-14271), and a decompressor is one of ours (CVE-2026-41567).

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

from wherry.linux import confine
from wherry.linux import containerroot as roots
from wherry.linux.containerroot import Ended, Inside, Layer, Point, Root
from wherry.linux.pychild import send_frame
from wherry.model.mount import Mount
from wherry.model.tarformat import Limits, TarReader
from wherry.storage.files_changes import changes
from wherry.storage.files_read import Found, TarStream, TreeArchive
from wherry.storage.files_write import Extractor, PipedSource, Refused
from wherry.storage.in_child import READS, WRITES, begin, failure, give_up, standard_input
from wherry.storage.streams import PLAIN, Buffered, Decompressed, ReadAhead

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
    ``changes VIEW``, and ``write VIEW PATH KEEP-KINDS [WHOLE]``."""
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
    except Ended:
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
    """Take the container's files as the root and give up the rest."""
    spec = json.loads(view)
    descriptors = roots.own_descriptors()
    os.umask(0)
    if "pidfd" in spec:
        roots.enter_process(Inside(**spec))
        os.close(spec["pidfd"])
    else:
        layer = Layer(
            Mount.of_fields(spec["mount"]),
            [Point(d, Mount.of_fields(m), *rest) for d, m, *rest in spec["points"]],
            writable=spec["writable"],
            readonly=spec["readonly"],
        )
        try:
            roots.enter_layer(layer)
        except FileNotFoundError:
            if spec["root"]:
                raise Ended from None  # the task's directory went meanwhile
            raise
        if spec["root"]:
            roots.confirm_root(*spec["root"])
    root = Root(descriptors)
    give_up(keep, files=_FILES)
    return root


def _stat(say: int, view: str, path: str, trailing: str) -> None:
    root = _enter(view, READS)
    confine.deny_system_calls()
    _say_stat(say, Found(root, path, trailing))


def _read(say: int, view: str, path: str, trailing: str) -> None:
    root = _enter(view, READS)
    confine.deny_system_calls()
    found = Found(root, path, trailing)
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


def _say_stat(say: int, found: Found) -> None:
    status = found.status
    mode = stat.S_IMODE(status.st_mode) & 0o777 | _GO_TYPES.get(stat.S_IFMT(status.st_mode), 0)
    for bit, go in ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20)):
        mode |= go if status.st_mode & bit else 0
    numbers = (str(n).encode() for n in (status.st_size, mode, status.st_mtime_ns))
    send_frame(say, b"stat", os.fsencode(found.name), *numbers, os.fsencode(found.target))


def _write(say: int, view: str, path: str, keep_kinds: str, whole: str = "0") -> None:
    read, compression = standard_input()
    stream = None
    if compression != PLAIN:
        stream = Decompressed(read, compression, Limits().unpacked_max, hashed=False)
    root = _enter(view, WRITES)
    try:
        top = root.find(path, os.O_DIRECTORY)
    except NotADirectoryError:
        raise _Stopped(b"not-directory") from None
    if os.fstatvfs(top).f_flag & _ST_RDONLY:
        same = os.fstat(top).st_dev == os.fstat(root.fd).st_dev
        raise _Stopped(b"readonly", b"rootfs" if same else b"mount")
    # after the root is settled: a thread shares it, but must be there before threads are refused nothing
    piped = None
    if stream is not None:
        next_piece = ReadAhead(stream.next_piece).next_piece
    else:
        next_piece = lambda: read(_PIECE)  # noqa: E731
        piped = PipedSource(0, next_piece)
    confine.deny_system_calls()
    reader = TarReader(piped or Buffered(next_piece), Limits(), whole=whole == "1")
    Extractor(root, top, reader, piped, keep_kinds=keep_kinds == "1").run()
    while next_piece():
        pass  # the client sends what follows the archive's end as well


def _changes(say: int, view: str) -> None:
    mount = Mount.of_fields(json.loads(view)["mount"])
    upper = next(o.removeprefix("upperdir=") for o in mount.options if o.startswith("upperdir="))
    files = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=roots.apart(upper))
    descriptors = roots.own_descriptors()
    confine.new_namespaces()
    roots.enter_image(upper, mount.options)
    root = Root(descriptors)
    # trusted.overlay.opaque is only shown to the mighty
    give_up((*READS, confine.CAP_SYS_ADMIN), files=_FILES)
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
