"""``wherry run`` and ``wherry create``."""

from __future__ import annotations

import os
import sys

from wherry.cli.command import UNLIMITED, Command, Failure
from wherry.cli.console import indented, on_terminal
from wherry.cli.create.body import build
from wherry.cli.create.flags import CREATE as CREATE_FLAGS
from wherry.cli.grammar.common import DETACH_KEYS
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL
from wherry.client import archives, containers
from wherry.errors import InvalidArgument, NotFound, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options

    Object = dict[str, Any]

PULL_CHOICES = ("always", "missing", "never")
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-/:@")
MADE_HERE = ("busybox", "debian", "hello", "node", "python")
"""Images that the daemon makes from the distribution's packages."""
IMAGE_MISSING = ("no such image", "does not provide the specified platform")


def create(ctx: Context, options: Options, args: list[str]) -> int:
    body = build(options, args[0], args[1:])
    try:
        identifier = create_container(ctx, options, body)
    except WherryError as e:
        raise Failure(indented(e.message)) from e
    ctx.say(identifier)
    return 0


def create_container(ctx: Context, options: Options, body: Object) -> str:
    """Create a container; pull its image if it is missing and the policy allows that. :returns: its ID."""
    pull = options.text("pull")
    if pull not in PULL_CHOICES:
        raise InvalidArgument(
            f'invalid pull option: \'{pull}\': must be one of "always", "missing" or "never"'
        )
    _check_names(options, body["Image"])
    cidfile = options.text("cidfile")
    if cidfile and os.path.exists(cidfile):
        raise InvalidArgument(
            f"container ID file found, make sure the other container isn't running or delete {cidfile}"
        )
    logins = b""
    if options.on("use-api-socket"):
        from wherry.cli.create import apisocket

        logins = apisocket.add(ctx, body)
    if pull == "always":
        _pull(ctx, options, body["Image"])
    try:
        answer = _create(ctx, options, body)
    except NotFound as e:
        is_version = "@{" in body["Image"]  # of a name here; no registry has such a thing
        if pull == "never" or is_version or not any(words in e.message.lower() for words in IMAGE_MISSING):
            raise
        _announce_missing(ctx, options, body["Image"])
        _pull(ctx, options, body["Image"])
        answer = _create(ctx, options, body)
    for warning in answer.get("Warnings") or []:
        ctx.complain(f"WARNING: {indented(str(warning))}")
    identifier = str(answer["Id"])
    if logins:
        _hand_over(ctx, identifier, logins)
    if cidfile:
        _write_cidfile(cidfile, identifier)
    return identifier


def _hand_over(ctx: Context, identifier: str, logins: bytes) -> None:
    """Copy an archive into a new container; if that fails, remove the container."""
    try:
        archives.put(ctx.api, containers.path(identifier), "/", [logins])
    except BaseException:
        containers.remove(ctx.api, identifier, force=True)
        raise


def _check_names(options: Options, image: str) -> None:
    """Refuse a malformed image or platform before the daemon is asked.

    The parser of references is only imported for suspicious names: it would double this module's loading
    time.
    """
    if not image or not all(c in PLAIN for c in image):
        from wherry.model import reference

        reference.parse(reference.split_version(image)[0])
    platform = options.text("platform")
    parts = platform.split("/")
    if platform and (len(parts) > 3 or not all(parts)):
        raise InvalidArgument(
            f'error parsing specified platform: "{platform}": '
            "cannot parse platform specifier: invalid argument"
        )


def _create(ctx: Context, options: Options, body: Object) -> Object:
    platform = options.text("platform") or os.environ.get("DOCKER_DEFAULT_PLATFORM", "")
    return containers.create(ctx.api, body, name=options.text("name"), platform=platform)


def _announce_missing(ctx: Context, options: Options, image: str) -> None:
    from wherry.model import reference

    if not options.on("quiet"):
        shown = reference.parse(image).with_default_tag().familiar()
        ctx.complain(f"Unable to find image '{shown}' locally")


def _pull(ctx: Context, options: Options, image: str) -> None:
    from wherry.cli.terminal.progress import show
    from wherry.client import credentials, images
    from wherry.model import reference

    wanted = reference.parse(image).with_default_tag()
    try:
        stream = images.pull(
            ctx.api,
            wanted.familiar_name,
            wanted.digest or wanted.tag or "",
            platform=options.text("platform") or os.environ.get("DOCKER_DEFAULT_PLATFORM", ""),
            headers=credentials.header_for(ctx.config_dir, image),
        )
        show(stream, quiet=options.on("quiet"), descriptor=2)
    except WherryError as e:
        name = wanted.familiar_name
        if name in MADE_HERE:
            versioned = name in ("node", "python") and not (wanted.tag or "").endswith("-slim")
            shown = f"{name}:VERSION-slim" if versioned else wanted.familiar()
            e.args = (f"{e.message}\nWithout a registry: wherry image bootstrap {shown}",)
        raise


def _write_cidfile(path: str, identifier: str) -> None:
    from wherry.client.files import write_all

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as e:
        raise InvalidArgument(
            f"failed to create the container ID file: open {path}: {(e.strerror or '').lower()}"
        ) from e
    try:
        write_all(descriptor, identifier.encode())
    finally:
        os.close(descriptor)


def run(ctx: Context, options: Options, args: list[str]) -> int:
    body = build(options, args[0], args[1:])
    detach = options.on("detach")
    if detach:
        if options.many("attach"):
            raise Failure("conflicting options: cannot specify both --attach and --detach")
        body |= dict.fromkeys(("AttachStdin", "AttachStdout", "AttachStderr", "StdinOnce"), False)
    elif body["AttachStdin"] and body["Tty"] and not on_terminal(0):
        raise Failure("the input device is not a TTY")
    if on_terminal(1):
        from wherry.cli.terminal.device import size

        body["HostConfig"]["ConsoleSize"] = list(size())
    identifier = create_container(ctx, options, body)
    if detach:
        return _run_detached(ctx, options, identifier)
    return _run_attached(ctx, options, identifier, body)


def _run_detached(ctx: Context, options: Options, identifier: str) -> int:
    try:
        containers.start(ctx.api, identifier, detach_keys=options.text("detach-keys"))
    except WherryError as e:
        from wherry.cli.exitcodes import start_failure

        raise start_failure(e, ctx.path) from e
    ctx.say(identifier)
    return 0


def _run_attached(ctx: Context, options: Options, identifier: str, body: Object) -> int:
    from wherry.cli.terminal.attached import Attachment

    if not any(body[stream] for stream in ("AttachStdin", "AttachStdout", "AttachStderr")):
        ctx.say(identifier)
        sys.stdout.flush()
    attachment = Attachment(
        ctx,
        identifier,
        stdin=body["AttachStdin"],
        stdout=body["AttachStdout"],
        stderr=body["AttachStderr"],
        tty=body["Tty"],
        detach_keys=options.text("detach-keys") or ctx.setting("detachKeys"),
        proxy_signals=options.on("sig-proxy") and not body["Tty"],
    )
    condition = "removed" if options.on("rm") else "next-exit"
    return attachment.start_and_wait(condition)


RUN = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    run,
    (
        *CREATE_FLAGS,
        Flag("detach", "d", BOOL, "Run container in background and print container ID"),
        DETACH_KEYS,
        Flag("sig-proxy", "", BOOL, "Proxy received signals to the process", default=True, shown="true"),
    ),
    least=1,
    most=UNLIMITED,
    interspersed=False,
    prefixed=True,
    complete="image none",
)
CREATE = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    create,
    CREATE_FLAGS,
    least=1,
    most=UNLIMITED,
    interspersed=False,
    prefixed=True,
    complete="image none",
)
