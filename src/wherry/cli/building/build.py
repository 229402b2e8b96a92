"""One build, from its flags to its end."""

from __future__ import annotations

import os
import sys

from wherry.cli.building import flags, source
from wherry.cli.building.outputs import finish
from wherry.cli.building.request import query_of
from wherry.cli.building.screen import with_advice
from wherry.cli.building.sending import send
from wherry.cli.command import Failure
from wherry.cli.console import can_draw, safe
from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from wherry.cli.building.screen import BuildScreen
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def build_in(
    ctx: Context,
    options: Options,
    path: str,
    kept: dict[str, Any] | None = None,
    screen: BuildScreen | None = None,
) -> int:
    """Build a context.

    :param kept: receives the daemon's message about the state that it kept after a failure.
    :param screen: shows the progress; None: one of its own, by the flags.
    """
    _refuse(options)
    origin = source.find(options, path)
    call = "check" if options.on("check") else options.text("call") or "build"
    secrets = flags.secrets(options.many("secret"))
    agents = flags.agents(options.many("ssh"))
    if agents and ctx.find_endpoint()[0].scheme != "unix":
        raise Failure("ERROR: --ssh needs a daemon on this machine")
    outputs = flags.outputs(options)
    told, local = flags.contexts(options.many("build-context"))
    query = query_of(ctx, options, origin, outputs, told)
    if call != "build":
        query["call"] = call
    if kept is not None:
        query["debug"] = True
    screen = screen or choose_screen(options, path)
    try:
        messages = send(ctx, options, query, origin, local, secrets, agents)
        result = _follow(screen, messages, kept)
    except BaseException as e:
        screen.close("CANCELED" if isinstance(e, KeyboardInterrupt) else "FINISHED")
        for line in with_advice(screen.failures()):
            sys.stderr.write(line + "\n")
        raise
    screen.close()
    if call != "build":
        from wherry.cli.building import calls

        return calls.show(ctx, call, result)
    return finish(ctx, options, outputs, result, screen.say)


def _refuse(options: Options) -> None:
    """Refuse unsupported flags; the error names the flag."""
    if options.text("builder") not in ("", "default"):
        raise Failure(f"ERROR: no builder {options.text('builder')!r} found: the daemon builds (default)")
    if options.many("policy"):
        raise Failure("ERROR: --policy is not supported")
    if options.given("rm") and not options.on("rm"):
        raise Failure(
            "ERROR: --rm=false is not supported: steps leave no containers behind (see build debug)"
        )
    for text in options.many("allow"):
        if text not in ("network.host", "security.insecure") and not text.startswith("device"):
            raise Failure(f"ERROR: invalid entitlement: {text}")


def choose_screen(options: Options, title: str) -> BuildScreen:
    """:raises Failure: ``--progress`` has no such mode."""
    from wherry.cli.building import screen

    wanted = options.text("progress") or os.environ.get("BUILDKIT_PROGRESS", "") or "auto"
    if wanted not in ("auto", "plain", "tty", "quiet", "rawjson"):
        raise Failure(f"ERROR: invalid progress mode {wanted!r}: auto, plain, tty, quiet or rawjson")
    if options.on("quiet") or wanted == "quiet":
        return screen.SilentScreen()
    if wanted == "rawjson":
        return screen.RawScreen()
    if wanted == "tty" or (wanted == "auto" and can_draw(2)):
        return screen.TreeScreen(f"Building {safe(title)}")
    return screen.BuildScreen()


def _follow(
    screen: BuildScreen, messages: Iterator[Any], kept: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Show a build's progress until its end. :returns: the result in its last messages."""
    result: dict[str, Any] = {} if kept is None else kept
    for message in messages:
        if not isinstance(message, dict):
            raise InvalidArgument("cannot read the daemon's answer: not a progress message")
        if message.get("error") or message.get("errorDetail"):
            detail = message.get("errorDetail") or {}
            text = str(detail.get("message") or message.get("error"))
            raise Failure(f"ERROR: {safe(text)}", 1)
        if message.get("aux") is not None:
            result.update(message["aux"])
        else:
            if str(message.get("stream", "")).startswith("sha256:"):
                result["ID"] = str(message["stream"]).strip()
            screen.put(message)
    return result
