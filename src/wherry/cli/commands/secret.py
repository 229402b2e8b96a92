"""``wherry secret create|ls|inspect|rm``: values that only containers can read."""

from __future__ import annotations

import os

from wherry.cli.command import UNLIMITED, Command, Failure, each
from wherry.cli.console import on_terminal
from wherry.cli.grammar.common import FILTERS, FORMAT_TABLE
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, LABELS, STRING
from wherry.cli.render import table
from wherry.cli.render.secretrow import SecretLine
from wherry.client import secrets
from wherry.errors import InvalidArgument, NotImplemented_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options

_SIZE_MAX = 500 << 10


def create(ctx: Context, options: Options, args: list[str]) -> int:
    for flag, what in (("driver", "secret drivers"), ("template-driver", "templates of secrets")):
        if options.text(flag):
            raise NotImplemented_(f"wherry: {what} are not implemented yet")
    if len(args) == 1:
        raise InvalidArgument("secret data must be given: name a file, or - for the standard input")
    value = _read(args[1])
    ctx.say(secrets.create(ctx.api, args[0], value, options.pairs("label")))
    return 0


def _read(path: str) -> bytes:
    """Reading stops above the maximum size of a secret."""
    if path == "-" and on_terminal(0):
        raise Failure("secret data must not come from a terminal: redirect a file")
    try:
        fd = 0 if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise InvalidArgument(f"error reading content from {path!r}: {(e.strerror or '').lower()}") from e
    try:
        pieces, total = [], 0
        while total <= _SIZE_MAX and (piece := os.read(fd, _SIZE_MAX + 1)):
            pieces.append(piece)
            total += len(piece)
        return b"".join(pieces)
    finally:
        if fd:
            os.close(fd)


def listing(ctx: Context, options: Options, args: list[str]) -> int:
    layout = options.text("format") or ctx.setting("secretFormat") or "table"
    if options.on("quiet"):
        layout = table.quiet(options.text("format"), "ID", "id")
    rows = [SecretLine(secret) for secret in secrets.listing(ctx.api, options.filters())]
    table.show(ctx, rows, layout, default=SecretLine.TABLE, headers=SecretLine.HEADERS)
    return 0


def inspect(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.commands.inspect import show

    if not options.on("pretty"):
        return show(ctx, args, options.text("format"), lambda name: secrets.inspect(ctx.api, name))
    if options.given("format"):
        raise InvalidArgument("--format is incompatible with human friendly format")
    return each(ctx, args, lambda name: _pretty(ctx, name))


def _pretty(ctx: Context, name: str) -> None:
    found = secrets.inspect(ctx.api, name)
    spec = found["Spec"]
    ctx.line(f"ID:              {found['ID']}")
    ctx.line(f"Name:            {spec['Name']}")
    ctx.say("Labels:")
    for key, value in sorted((spec.get("Labels") or {}).items()):
        ctx.line(f" - {key}={value}")
    ctx.line(f"Created at:      {found['CreatedAt']}")
    ctx.line(f"Updated at:      {found['UpdatedAt']}")


def remove(ctx: Context, options: Options, args: list[str]) -> int:
    def one(name: str) -> str:
        secrets.remove(ctx.api, name)
        return name

    return each(ctx, args, one)


CREATE = Command(
    "[OPTIONS] SECRET [file|-]",
    create,
    (
        Flag("driver", "d", STRING, "Secret driver"),
        Flag("label", "l", LABELS, "Secret labels"),
        Flag("template-driver", "", STRING, "Template driver"),
    ),
    least=1,
    most=2,
    complete="none file",
    description="Keep a value, encrypted, for containers to read. It is never shown again.",
)
LS = Command("[OPTIONS]", listing, (FILTERS, FORMAT_TABLE, Flag("quiet", "q", BOOL, "Only display IDs")))
INSPECT = Command(
    "[OPTIONS] SECRET [SECRET...]",
    inspect,
    (
        Flag("format", "f", STRING, "Format output using a custom template"),
        Flag("pretty", "", BOOL, "Print the information in a human friendly format"),
    ),
    least=1,
    most=UNLIMITED,
)
RM = Command("SECRET [SECRET...]", remove, least=1, most=UNLIMITED)
