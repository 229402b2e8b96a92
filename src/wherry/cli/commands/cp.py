"""``wherry cp`` and ``wherry volume cp``, with the rules of Docker's client for destinations.

The name of a copy depends on the destination: in an existing directory it keeps its own name, otherwise the
destination is its new name. A source that ends with ``/.`` means a directory's content.
"""

from __future__ import annotations

import os
import posixpath
import stat
import sys
import time

from wherry.cli.command import Command, Failure
from wherry.cli.console import can_draw, on_terminal, safe
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL
from wherry.cli.render import units
from wherry.client import archives, containers, volumes
from wherry.client.files import write_all
from wherry.errors import NotFound, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options

GO_DIRECTORY, GO_SYMLINK = 1 << 31, 1 << 27
GO_SPECIAL = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 19
_READ = 1 << 20
_SHOW_EVERY = 0.1
_LINKS_MAX = 40


class _Place:
    """One end of a copy: its path, and the file there."""

    __slots__ = ("exists", "is_directory", "path")

    def __init__(self, path: str, *, exists: bool, is_directory: bool) -> None:
        self.path, self.exists, self.is_directory = path, exists, is_directory


def split_argument(text: str) -> tuple[str, str]:
    """``CONTAINER:PATH`` as (container, path); a local path has no container."""
    container, colon, path = text.partition(":")
    if os.path.isabs(text) or not colon or container.startswith(".") or not container:
        return "", text
    return container, path


def base_name(path: str) -> str:
    """The first component of names in an archive of ``path``: ``.`` for a directory's
    content, empty for /."""
    if path.endswith("/.") or path == ".":
        return "."
    return posixpath.basename(posixpath.normpath(path)).strip("/")


def names(source: _Place, target: _Place, base: str) -> tuple[str, str]:
    """The directory to extract in, and the name that replaces ``base``."""
    if target.exists and target.is_directory:
        return target.path, base
    if target.exists and source.is_directory:
        raise Failure("cannot copy directory")
    if not source.is_directory and _asserts_directory(target.path):
        raise Failure("not a directory" if target.exists else "no such directory")
    clean = posixpath.normpath(target.path)
    return posixpath.dirname(clean), posixpath.basename(clean)


def _asserts_directory(path: str) -> bool:
    return path.endswith(("/", "/.")) or path == "."


class _Kind:
    """The kinds of objects to copy from and to: the noun, and the beginning of the API path."""

    __slots__ = ("noun", "path")

    def __init__(self, noun: str, path: Callable[[str], str]) -> None:
        self.noun, self.path = noun, path


def cp(ctx: Context, options: Options, args: list[str]) -> int:
    return _copy(ctx, options, args, _Kind("container", containers.path))


def volume_cp(ctx: Context, options: Options, args: list[str]) -> int:
    return _copy(ctx, options, args, _Kind("volume", volumes.path))


def _copy(ctx: Context, options: Options, args: list[str], kind: _Kind) -> int:
    source_name, source = split_argument(args[0])
    target_name, target = split_argument(args[1])
    if source_name and target_name:
        raise Failure(f"copying between {kind.noun}s is not supported")
    if not source_name and not target_name:
        raise Failure(f"must specify at least one {kind.noun} source")
    quiet = options.on("quiet") if options.given("quiet") else not on_terminal(1)
    meter = _Meter("to" if target_name else "from", kind.noun, quiet=quiet)
    follow, archive = options.on("follow-link"), options.on("archive")
    if source_name:
        if not source:
            raise Failure("source can not be empty")
        _fetch(ctx, meter, kind.path(source_name), source, target, follow=follow, archive=archive)
    else:
        if not target:
            raise Failure("destination can not be empty")
        where = _Remote(kind, target_name)
        _send(ctx, meter, source, where, target, follow=follow, archive=archive)
    return 0


class _Remote:
    """One container or volume: its name, and its API path."""

    __slots__ = ("base", "missing", "name")

    def __init__(self, kind: _Kind, name: str) -> None:
        self.name, self.base = name, kind.path(name)
        self.missing = f"o such {kind.noun}"


class _Meter:
    """Counts an archive's bytes; shows them on a terminal while they come, and once at the end."""

    def __init__(self, direction: str, noun: str, *, quiet: bool) -> None:
        self._text = f"Copying {direction} {noun} - "
        self._quiet = quiet
        self._live = not quiet and can_draw(2)
        self._next = 0.0
        self._count = 0

    def over(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._count += len(piece)
            if self._live and time.monotonic() >= self._next:
                self._next = time.monotonic() + _SHOW_EVERY
                sys.stderr.write(f"\r\x1b[K{self._text}{units.size(self._count, 4)}")
                sys.stderr.flush()
            yield piece

    def clear(self) -> None:
        if self._live and self._next:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def done(self, ctx: Context, where: str) -> None:
        self.clear()
        if not self._quiet:
            ctx.complain(f"Successfully copied {units.size(self._count)} to {safe(where)}")


# ---- out of a container ------------------------------------------------------------------------------------


def _fetch(
    ctx: Context, meter: _Meter, base: str, path: str, target: str, *, follow: bool, archive: bool
) -> None:
    place = _local_target(target) if target != "-" else None
    wanted = base_name(path)
    if follow:
        found = archives.stat_path(ctx.api, base, path)
        if int(found.get("mode", 0)) & GO_SYMLINK and found.get("linkTarget"):
            path = posixpath.join(posixpath.dirname(posixpath.normpath(path)), str(found["linkTarget"]))
    response, found = archives.get(ctx.api, base, path)
    if place is None:
        for piece in response:
            write_all(1, piece)
        return
    try:
        source = _Place(path, exists=True, is_directory=bool(int(found.get("mode", 0)) & GO_DIRECTORY))
        directory, new = names(source, place, wanted)
        from wherry.client.unpack import ArchiveUnpacker

        pieces = meter.over(response)
        old = base_name(path)
        ArchiveUnpacker(directory, pieces, old=old, new=new, archive=archive, complain=ctx.complain).run()
        for _ in pieces:
            pass  # data after the archive's end
    except BaseException:
        meter.clear()
        ctx.api.drop(response)
        raise
    meter.done(ctx, _absolute(target))


def _absolute(path: str) -> str:
    end = "/." if path.endswith("/.") else "/" if path.endswith("/") else ""
    clean = os.path.abspath(path)
    return clean if clean == "/" else clean + end


def _local_target(path: str) -> _Place:
    place = _local(_absolute(path), follow=True)
    parent = os.path.dirname(os.path.normpath(place.path))
    if not place.exists and not os.path.isdir(parent):
        raise Failure(f'invalid output path: directory "{parent}" does not exist')
    if place.exists and not place.is_directory and not os.path.isfile(place.path):
        raise Failure(f'invalid output path: "{place.path}" must be a directory or a regular file')
    return place


def _local(path: str, *, follow: bool) -> _Place:
    """A local path. With ``follow``, symbolic links at its end are resolved, even to a missing target."""
    for _ in range(_LINKS_MAX if follow else 0):
        clean = os.path.normpath(path)
        if not os.path.islink(clean):
            break
        end = path[len(clean) :] if path.startswith(clean) else ""
        path = os.path.join(os.path.dirname(clean), os.readlink(clean)) + end
    try:
        status = os.stat(path) if _asserts_directory(path) else os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return _Place(path, exists=os.path.exists(os.path.normpath(path)), is_directory=False)
    return _Place(path, exists=True, is_directory=stat.S_ISDIR(status.st_mode))


# ---- into a container --------------------------------------------------------------------------------------


def _send(
    ctx: Context, meter: _Meter, source: str, remote: _Remote, path: str, *, follow: bool, archive: bool
) -> None:
    place = _remote_target(ctx, remote, path)
    if source == "-":
        if not place.is_directory:
            raise Failure(f'destination "{remote.name}:{place.path}" must be a directory')
        directory, pieces = place.path, _stdin()
    else:
        from wherry.client.pack import Packer

        local = _local_source(source, follow=follow)
        directory, new = names(local, place, base_name(_absolute(source)))
        pieces = iter(Packer(os.path.normpath(local.path), new, follow=follow))
    try:
        archives.put(ctx.api, remote.base, directory, meter.over(pieces), copy_uid_gid=archive)
    except BaseException:
        meter.clear()
        raise
    meter.done(ctx, f"{remote.name}:{path}")


def _stdin() -> Iterator[bytes]:
    while piece := os.read(0, _READ):
        yield piece


def _local_source(path: str, *, follow: bool) -> _Place:
    place = _local(_absolute(path), follow=follow)
    if not place.exists:
        raise Failure(f"lstat {place.path}: no such file or directory")
    if not place.is_directory and _asserts_directory(place.path):
        raise Failure("not a directory")
    return place


def _remote_target(ctx: Context, remote: _Remote, path: str) -> _Place:
    """The file at the destination, with links followed; it need not exist."""
    path = path if path.startswith("/") else "/" + path
    try:
        found = archives.stat_path(ctx.api, remote.base, path)
        if int(found.get("mode", 0)) & GO_SYMLINK and found.get("linkTarget"):
            path = posixpath.join(posixpath.dirname(posixpath.normpath(path)), str(found["linkTarget"]))
            found = archives.stat_path(ctx.api, remote.base, path)
    except NotFound as e:
        if remote.missing in e.message:
            raise
        return _Place(path, exists=False, is_directory=False)
    except WherryError:
        # For example, a part of the path is not a directory: extracting will fail with the reason.
        return _Place(path, exists=False, is_directory=False)
    mode = int(found.get("mode", 0))
    if mode & GO_SPECIAL:
        raise Failure(f'destination "{remote.name}:{path}" must be a directory or a regular file')
    return _Place(path, exists=True, is_directory=bool(mode & GO_DIRECTORY))


_FLAGS = (
    Flag("archive", "a", BOOL, "Archive mode (copy all uid/gid information)"),
    Flag("follow-link", "L", BOOL, "Always follow symbol link in SRC_PATH"),
    Flag("quiet", "q", BOOL, "Suppress progress output during copy (on by default without a terminal)"),
)
CP = Command(
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\twherry cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    cp,
    _FLAGS,
    least=2,
    most=2,
    complete="copy",
    description=(
        "Copy files between a container and the local file system\n\n"
        "'-' as the source reads a tar archive from stdin and extracts it in a directory of the container;\n"
        "'-' as the destination writes a tar archive to stdout."
    ),
)
VOLUME_CP = Command(
    "[OPTIONS] VOLUME:SRC_PATH DEST_PATH|-\n\twherry volume cp [OPTIONS] SRC_PATH|- VOLUME:DEST_PATH",
    volume_cp,
    _FLAGS,
    least=2,
    most=2,
    complete="volume volume",
    description="Copy files between a volume and the local file system. No container is needed; as with cp,\n"
    "'-' stands for a tar archive on stdin or stdout.",
)
