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
import resource
import stat
from collections.abc import Callable

from wherry.linux import confine
from wherry.linux import containerroot as roots
from wherry.linux import syscalls as calls
from wherry.linux.containerroot import Ended, Inside, Layer, Point, Root
from wherry.linux.pychild import send_frame
from wherry.model.mount import Mount
from wherry.model.tarformat import BadTar, Limits, TarReader
from wherry.storage.files_changes import changes
from wherry.storage.files_read import Found, TarStream, TreeArchive
from wherry.storage.files_write import Extractor, PipedSource, Refused
from wherry.storage.streams import PLAIN, Buffered, Decompressed, ReadAhead, detect

_READS = (confine.CAP_DAC_READ_SEARCH,)
_WRITES = (
    confine.CAP_CHOWN,
    confine.CAP_DAC_OVERRIDE,
    confine.CAP_FOWNER,
    confine.CAP_FSETID,
    confine.CAP_MKNOD,
    confine.CAP_SETFCAP,
)
_MEMORY = 1 << 30
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
    """Arguments: ``FD``, then one of ``stat|read VIEW PATH TRAILING``, ``export|changes VIEW``, and
    ``write VIEW PATH KEEP-KINDS [WHOLE]``."""
    calls.prctl(calls.PR_SET_PDEATHSIG, 9)
    calls.prctl(calls.PR_SET_DUMPABLE, 0)  # a container that shares the host's processes cannot trace it
    result_fd, role, view, *rest = arguments
    say = int(result_fd)
    try:
        _ROLES[role](say, view, *rest)
        result: tuple[bytes, ...] = (b"ok",)
    except BadTar as e:
        result = (b"bad", str(e).encode("utf-8", "replace"))
    except Refused as e:
        result = (b"refused", str(e).encode("utf-8", "replace"))
    except _Stopped as e:
        result = e.fields
    except Ended:
        result = (b"ended",)
    except OSError as e:
        result = (b"os", str(e.errno or 0).encode(), (e.strerror or str(e)).encode("utf-8", "replace"))
    except MemoryError:
        result = (b"bad", b"it needs more memory than one archive may use")
    except BaseException as e:  # a traceback would read source files, in whatever root this is
        result = (b"os", b"0", f"{e.__class__.__name__}: {e}".encode("utf-8", "replace"))
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
            _mount(spec["mount"]),
            [Point(d, _mount(m), *rest) for d, m, *rest in spec["points"]],
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
    _give_up(keep)
    return root


def _give_up(keep: tuple[int, ...]) -> None:
    confine.drop_capabilities(keep)
    confine.limit({resource.RLIMIT_AS: _MEMORY, resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: _FILES})
    confine.deny_new_code()


def _mount(parts: list[object]) -> Mount:
    kind, source, options = parts
    assert isinstance(kind, str) and isinstance(source, str) and isinstance(options, list)
    return Mount(kind, source, tuple(options))


def _stat(say: int, view: str, path: str, trailing: str) -> None:
    root = _enter(view, _READS)
    confine.deny_system_calls()
    _say_stat(say, Found(root, path, trailing))


def _read(say: int, view: str, path: str, trailing: str) -> None:
    root = _enter(view, _READS)
    confine.deny_system_calls()
    found = Found(root, path, trailing)
    _say_stat(say, found)
    out = TarStream(1)
    TreeArchive(root, out).write(found)
    out.end()


def _export(_say: int, view: str) -> None:
    root = _enter(view, _READS)
    confine.deny_system_calls()
    out = TarStream(1)
    TreeArchive(root, out, one_file_system=True).write_bare(root.fd)
    out.end()


def _say_stat(say: int, found: Found) -> None:
    status = found.status
    mode = stat.S_IMODE(status.st_mode) & 0o777 | _GO_TYPES.get(stat.S_IFMT(status.st_mode), 0)
    for bit, go in ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20)):
        mode |= go if status.st_mode & bit else 0
    numbers = (str(n).encode() for n in (status.st_size, mode, status.st_mtime_ns))
    send_frame(say, b"stat", os.fsencode(found.name), *numbers, os.fsencode(found.target))


def _write(say: int, view: str, path: str, keep_kinds: str, whole: str = "0") -> None:
    head = b""
    while len(head) < 6 and (piece := os.read(0, _PIECE)):
        head += piece
    compression = detect(head[:6])
    held = [head] if head else []

    def read(size: int) -> bytes:
        return held.pop() if held else os.read(0, max(size, 1 << 16))

    stream = None
    if compression != PLAIN:
        stream = Decompressed(read, compression, Limits().unpacked_max, hashed=False)
    root = _enter(view, _WRITES)
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
    mount = _mount(json.loads(view)["mount"])
    upper = next(o.removeprefix("upperdir=") for o in mount.options if o.startswith("upperdir="))
    files = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    descriptors = roots.own_descriptors()
    confine.new_namespaces()
    roots.enter_image(upper, mount.options)
    root = Root(descriptors)
    # trusted.overlay.opaque is only shown to the mighty
    _give_up((*_READS, confine.CAP_SYS_ADMIN))
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
