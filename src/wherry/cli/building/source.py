"""Find the Dockerfile and the main context of a build."""

from __future__ import annotations

import os
import sys

from wherry.cli.building import flags
from wherry.cli.command import Failure
from wherry.cli.console import safe
from wherry.client.files import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from wherry.cli.grammar.flags import Options
    from wherry.client.buildcontext import LocalContext


class BuildSource:
    """The sources of the Dockerfile and of the main context."""

    __slots__ = ("archive", "directory", "dockerfile", "remote", "text")

    def __init__(self) -> None:
        self.directory = self.remote = ""
        self.dockerfile = "Dockerfile"
        self.text: bytes | None = None
        self.archive: Iterable[bytes] | None = None


def find(options: Options, path: str) -> BuildSource:
    source = BuildSource()
    file = options.text("file")
    if path == "-":
        if file == "-":
            raise Failure("ERROR: invalid argument: can't use stdin for both build context and dockerfile")
        _from_stdin(source)
        source.dockerfile = file or source.dockerfile
        return source
    if flags.is_git(path) or path.startswith(("http://", "https://")):
        source.remote = path
        source.dockerfile = file or "Dockerfile"
        return source
    if not os.path.isdir(path):
        raise Failure(f'ERROR: unable to prepare context: path "{safe(path)}" not found')
    source.directory = path
    if file == "-":
        source.text, source.dockerfile = sys.stdin.buffer.read(), "-"
        return source
    _find_dockerfile(source, file)
    return source


def _from_stdin(source: BuildSource) -> None:
    """An archive, or a Dockerfile without a context."""
    import io

    stdin = io.BufferedReader(io.FileIO(0, closefd=False), 1 << 18)
    head = stdin.peek(512)[:512]
    compressed = head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"))
    if compressed or head[257:262] == b"ustar":
        source.archive = iter(lambda: stdin.read1(1 << 18), b"")
    else:
        source.text = stdin.read()
        source.dockerfile = "Dockerfile"


def _find_dockerfile(source: BuildSource, file: str) -> None:
    """A Dockerfile inside the context is named by its path there; any other is read here and
    sent separately."""
    path = file or os.path.join(source.directory, "Dockerfile")
    if not file and not os.path.exists(path) and os.path.exists(os.path.join(source.directory, "dockerfile")):
        path = os.path.join(source.directory, "dockerfile")
    try:
        text = read_file(path)
    except OSError as e:
        raise Failure(f"ERROR: failed to read dockerfile: open {safe(path)}: {e.strerror}") from None
    inside = os.path.relpath(os.path.realpath(path), os.path.realpath(source.directory))
    source.dockerfile = inside if not inside.startswith("..") else os.path.basename(path)
    if inside.startswith(".."):
        source.text = text


def inside(source: BuildSource) -> str:
    return source.dockerfile if source.text is None else "Dockerfile"


def local_context(directory: str, dockerfile: str) -> LocalContext:
    """A context without ignored files: ``<Dockerfile>.dockerignore`` takes precedence over
    ``.dockerignore``."""
    from wherry.client.buildcontext import LocalContext

    keep = [dockerfile] if dockerfile else []
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        path = os.path.join(directory, name)
        if dockerfile and os.path.isfile(path):
            from wherry.model.ignore import Patterns, read

            lines = read(read_file(path).decode("utf-8", "surrogateescape"))
            return LocalContext(directory, Patterns(lines), [*keep, name])
    return LocalContext(directory)
