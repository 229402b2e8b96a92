"""Images and files: save, load, import, and bootstrap, which makes an image from packages."""

from __future__ import annotations

import os
import stat
import sys

from wherry.cli.command import UNLIMITED, Command, Failure
from wherry.cli.console import on_terminal
from wherry.cli.grammar.common import PLATFORM
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, LIST, STRING
from wherry.cli.terminal.progress import Working, show
from wherry.client import images, jsonwire
from wherry.client.files import write_all
from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options

READ_SIZE = 1 << 20


def _pieces(descriptor: int) -> Iterator[bytes]:
    while piece := os.read(descriptor, READ_SIZE):
        yield piece


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise InvalidArgument(f"open {path}: {(e.strerror or '').lower()}") from e


def _size(descriptor: int) -> int:
    """A file's size in bytes; 0 if it is not a regular file."""
    status = os.fstat(descriptor)
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def load(ctx: Context, options: Options, args: list[str]) -> int:
    path = options.text("input")
    if not path and on_terminal(0):
        raise Failure("requested load from stdin, but stdin is empty")
    descriptor = _open(path) if path else 0
    quiet = options.on("quiet")
    try:
        with Working("Sending images", total=_size(descriptor), quiet=quiet) as working:
            response = images.load(
                ctx.api,
                working.over(_pieces(descriptor)),
                quiet=quiet or not on_terminal(1),
                platform=options.text("platform"),
            )
        sys.stdout.flush()
        if "json" in response.headers.get("content-type", ""):
            show(jsonwire.messages(response), quiet=False, waiting="" if quiet else "Loading images")
        else:
            for piece in response:
                write_all(1, piece)
    finally:
        if path:
            os.close(descriptor)
    return 0


def save(ctx: Context, options: Options, args: list[str]) -> int:
    path = output(options)
    if path and os.path.isdir(path):
        raise Failure(f'failed to save image: invalid output path: "{path}" is a directory')
    directory = os.path.dirname(path) or "."
    if path and not os.path.isdir(directory):
        raise Failure(
            f"failed to save image: invalid output path: stat {directory}: no such file or directory"
        )
    archive = images.save(ctx.api, args, platform=options.text("platform"))
    give(path, archive, "Saving")
    return 0


def output(options: Options) -> str:
    """The file that ``--output`` names, ``""`` for stdout. :raises Failure: stdout is a terminal."""
    path = options.text("output")
    if not path and on_terminal(1):
        raise Failure("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    return path


def give(path: str, archive: Iterable[bytes], doing: str) -> None:
    """Write an archive to the file of :func:`output`; it is renamed to its name when it is complete."""
    if not path:
        for piece in archive:
            write_all(1, piece)
        return
    with Working(doing) as working:
        _write_whole(path, working.over(archive))


def _write_whole(path: str, pieces: Iterable[bytes]) -> None:
    """Write a file that is renamed to its name when it is complete; a special file is written in place."""
    if os.path.exists(path) and not os.path.isfile(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for piece in pieces:
                write_all(descriptor, piece)
        finally:
            os.close(descriptor)
        return
    directory, name = os.path.split(path)
    partial = os.path.join(directory, f".tmp-{name}{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            for piece in pieces:
                write_all(descriptor, piece)
        finally:
            os.close(descriptor)
        os.rename(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def import_(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.model import reference

    source, name = args[0], args[1] if len(args) > 1 else ""
    repository, tag = "", ""
    if name:
        target = reference.parse(name)
        if target.digest is not None:
            raise Failure("cannot import digest reference")
        target = target.with_default_tag()
        repository, tag = target.familiar_name, target.tag or ""
    is_url = source.startswith(("http://", "https://"))
    descriptor = -1 if is_url else 0 if source == "-" else _open(source)
    try:
        with Working("Sending", total=0 if is_url else _size(descriptor)) as working:
            stream = images.import_(
                ctx.api,
                source if is_url else "-",
                None if is_url else working.over(_pieces(descriptor)),
                repository=repository,
                tag_name=tag,
                message=options.text("message"),
                changes=options.many("change"),
                platform=options.text("platform"),
            )
        show(stream, waiting="Importing")
    finally:
        if descriptor > 0:
            os.close(descriptor)
    return 0


def bootstrap(ctx: Context, options: Options, args: list[str]) -> int:
    stream = images.bootstrap(ctx.api, args[0], mirror=options.text("mirror"), variant=options.text("suite"))
    aux = show(stream, quiet=options.on("quiet"), waiting=f"Making {args[0]}")
    if options.on("quiet"):
        for value in aux:
            if isinstance(value, dict) and value.get("ID"):
                ctx.say(str(value["ID"]))
    return 0


LOAD = Command(
    "[OPTIONS]",
    load,
    (
        Flag("input", "i", STRING, "Read from tar archive file, instead of STDIN", complete="file"),
        PLATFORM,
        Flag("quiet", "q", BOOL, "Suppress the load output"),
    ),
)
SAVE = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    save,
    (Flag("output", "o", STRING, "Write to a file, instead of STDOUT", complete="file"), PLATFORM),
    least=1,
    most=UNLIMITED,
    complete="image",
)
IMPORT = Command(
    "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    import_,
    (
        Flag("change", "c", LIST, "Apply Dockerfile instruction to the created image"),
        Flag("message", "m", STRING, "Set commit message for imported image"),
        Flag("platform", "", STRING, "Set platform if server is multi-platform capable"),
    ),
    least=1,
    most=2,
    complete="file none",
)
BOOTSTRAP = Command(
    "[OPTIONS] NAME",
    bootstrap,
    (
        Flag("mirror", "", STRING, "Take packages from this mirror"),
        Flag("quiet", "q", BOOL, "Only print the image's ID"),
        Flag("suite", "", STRING, "Release of the distribution, or variant of the image"),
    ),
    least=1,
    most=1,
    complete="words:busybox,debian,hello,node:18-slim,python:3.11-slim",
    description="Make a base image (busybox, hello, debian[:suite[-slim]], python:<minor>-slim or "
    "node:<major>-slim) from this distribution's packages, without a registry",
)
