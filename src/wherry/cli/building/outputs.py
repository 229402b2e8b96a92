"""The files that a build writes on this side: outputs, caches in directories, files that flags name."""

from __future__ import annotations

import os
import sys

from wherry.cli.building import flags
from wherry.cli.command import Failure
from wherry.cli.console import on_terminal, safe
from wherry.client import builds, jsonwire
from wherry.client.files import write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options

_FIRST_CACHE = 1000
"""The number of the first output that is a cache, as the daemon counts them."""


def finish(
    ctx: Context,
    options: Options,
    outputs: list[dict[str, str]],
    result: dict[str, Any],
    say: Callable[[str], None],
) -> int:
    """Write what a build has made. :param say: prints what is for people."""
    image = str(result.get("ID", ""))
    caches = [one for one in flags.caches(options.many("cache-to"), "cache-to") if one["type"] == "local"]
    for number, cache in enumerate(caches, _FIRST_CACHE):
        _take(ctx, {"type": "local", "dest": cache["dest"]}, str(result.get("Build", "")), number)
    for number, output in enumerate(outputs):
        if output["type"] in ("local", "tar", "oci", "docker"):
            _take(ctx, output, str(result.get("Build", "")), number)
    if options.text("iidfile"):
        _write(options.text("iidfile"), image)
    if options.text("metadata-file"):
        metadata = dict(result.get("Metadata") or {})
        _write(options.text("metadata-file"), jsonwire.indented(metadata, "  ") + "\n")
    if options.on("quiet"):
        ctx.say(image)
    elif image:
        names = "".join(f"\nNamed {safe(_full(name))}" for name in options.many("tag"))
        say(f"Built {safe(image)}{names}")
    return 0


def _full(name: str) -> str:
    """A name with its tag."""
    from wherry.errors import InvalidArgument
    from wherry.model import reference

    try:
        return reference.parse(name).with_default_tag().familiar()
    except InvalidArgument:
        return name


def _write(path: str, text: str) -> None:
    try:
        write_file(path, [text.encode()])
    except OSError as e:
        raise Failure(f"ERROR: cannot write {path}: {e.strerror}") from None


def _take(ctx: Context, output: Mapping[str, str], build_id: str, number: int) -> None:
    """Fetch an output and write it to its destination."""
    destination = output["dest"]
    response = builds.output(ctx.api, build_id, number)
    pieces = iter(lambda: response.read(), b"")
    is_directory = output["type"] == "local" or output.get("tar") == "false"
    if is_directory:
        from wherry.client.unpack import ArchiveUnpacker

        os.makedirs(destination, exist_ok=True)
        ArchiveUnpacker(destination, pieces, old="", new="", archive=False, complain=ctx.complain).run()
        return
    if destination == "-":
        if on_terminal(1):
            raise Failure("ERROR: dest file is required for tar exporter. refusing to write to console")
        sys.stdout.flush()
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    write_file(destination, pieces)
