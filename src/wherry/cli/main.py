"""``wherry``: global flags, the command's name, and the handling of errors.

A command's module is only imported when it is used, so ``wherry version`` does not load ``run``.
"""

from __future__ import annotations

import os
import sys

from wherry.cli import commands
from wherry.cli.command import UNLIMITED, Command, Context, Failure
from wherry.cli.console import indented, open_standard, safe
from wherry.cli.grammar.flags import Flag, FlagError, HelpWanted, parse
from wherry.cli.grammar.values import BOOL, LIST, STRING
from wherry.client.discovery import WantedDaemon, config_dir
from wherry.errors import InvalidArgument, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.cli.grammar.flags import Options

INTERRUPTED = 130
USAGE_ERROR = 125
REFUSED = ("unauthorized", "authentication required", "access denied", "access to the resource is denied")
"""Messages of registries to users who are not logged in."""
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal", "panic", "trace")


def global_flags() -> tuple[Flag, ...]:
    place = config_dir(os.environ)
    return (
        Flag(
            "config",
            "",
            STRING,
            "Directory of the client's config files",
            shown=f'"{place}"',
            complete="file",
        ),
        Flag(
            "context",
            "c",
            STRING,
            "Name of the context whose daemon to use (instead of DOCKER_HOST and the current context)",
            complete="context",
        ),
        Flag("debug", "D", BOOL, "Show where an error comes from"),
        Flag("host", "H", LIST, "Daemon socket to connect to"),
        Flag(
            "log-level",
            "l",
            STRING,
            'Logging level ("debug", "info", "warn", "error", "fatal")',
            default="info",
            shown='"info"',
            complete="debug info warn error fatal",
        ),
        Flag("tls", "", BOOL, "Use TLS; implied by --tlsverify"),
        Flag("tlscacert", "", STRING, "Trust only certificates signed by this CA", shown=f'"{place}/ca.pem"'),
        Flag("tlscert", "", STRING, "TLS certificate file", shown=f'"{place}/cert.pem"'),
        Flag("tlskey", "", STRING, "TLS key file", shown=f'"{place}/key.pem"'),
        Flag("tlsverify", "", BOOL, "Use TLS and verify the daemon"),
        Flag("version", "v", BOOL, "Print version information and quit"),
    )


def entry() -> int:
    """The console script: returns the exit code, and ends quietly at an interrupt or a closed pipe."""
    try:
        open_standard()
        _use_utf8()
        code = main(sys.argv[1:])
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _die_of_sigpipe()
    except OSError as e:
        return _explain(e)


def _use_utf8() -> None:
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")


def _explain(error: OSError) -> int:
    where = f" {error.filename}" if error.filename else ""
    sys.stderr.write(f"wherry: cannot go on:{where} {error.strerror or error}\n")
    return 1


def _die_of_sigpipe() -> int:
    """End silently by SIGPIPE, as any filter does if its reader has gone."""
    import signal

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    return 141


def main(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    flags = global_flags()
    try:
        options, words = parse(flags, argv, interspersed=False)
    except FlagError as e:
        return _usage_error(str(e), "wherry", "[OPTIONS] COMMAND [ARG...]", USAGE_ERROR)
    except HelpWanted:
        return _help(())
    if options.on("version"):
        from wherry import __version__

        print(f"wherry version {__version__}")
        return 0
    if options.text("log-level") not in LOG_LEVELS:
        sys.stderr.write(f"Unable to parse logging level: {safe(options.text('log-level'))}\n")
        return 1
    if not words:
        return _help(())
    return dispatch(_context(options), words)


def _context(options: Options) -> Context:
    hosts = options.many("host")
    wanted = WantedDaemon(
        host=hosts[-1] if hosts else "",
        context=options.text("context"),
        tls=options.on("tls"),
        tls_verify=options.on("tlsverify"),
        tlscacert=options.text("tlscacert"),
        tlscert=options.text("tlscert"),
        tlskey=options.text("tlskey"),
    )
    debug = options.on("debug") or options.text("log-level") in ("debug", "trace")
    return Context(wanted, config=options.text("config"), debug=debug)


def dispatch(ctx: Context, words: list[str]) -> int:
    """Find the command that ``words`` begin with, and run it with the rest, in a context of its own."""
    if words[0] == "help":
        return _help(tuple(words[1:]))
    try:
        group, words = _group_flags(words)
    except FlagError as e:
        return _usage_error(str(e), f"wherry {words[0]}", "[OPTIONS] COMMAND", _usage_code(words))
    except HelpWanted:
        return _help((words[0],))
    found = commands.find(words)
    if found.entry is None:
        return _no_such(found, words)
    command = commands.load(found.entry)
    path = found.path
    try:
        options, args = parse(command.flags, words[found.used :], interspersed=command.interspersed)
    except HelpWanted:
        return _help(tuple(words[: found.used]))
    except FlagError as e:
        return _usage_error(str(e), path, command.usage, _usage_code(words))
    problem = wrong_count(command, len(args))
    if problem:
        return _usage_error(f"wherry: '{path}' {problem}", path, command.usage, 1)
    return _guarded(ctx.derived(path=path, group=group), command, options, args)


def _usage_code(words: Sequence[str]) -> int:
    """The exit code of a command line that cannot be parsed; Docker's Compose plugin has its own."""
    return 1 if words[0] == "compose" else USAGE_ERROR


def _group_flags(words: list[str]) -> tuple[Options | None, list[str]]:
    """The flags of a group, which stand before the command's name, and the words without them."""
    if words[0] not in commands.GROUP_FLAGS:
        return None, words
    group, rest = parse(commands.group_flags(words[0]), words[1:], interspersed=False)
    return group, [words[0], *rest]


def wrong_count(command: Command, count: int) -> str:
    """What is wrong with this number of arguments, in Docker's words; empty when nothing is."""
    least, most = command.least, command.most
    if count >= least and (most == UNLIMITED or count <= most):
        return ""
    if most == 0:
        return "accepts no arguments"
    if most == UNLIMITED:
        return f"requires at least {least} {_arguments(least)}"
    if least == most:
        return f"requires {least} {_arguments(least)}"
    if least == 0:
        return f"requires at most {most} {_arguments(most)}"
    return f"requires at least {least} and at most {most} {_arguments(most)}"


def _arguments(count: int) -> str:
    return "argument" if count == 1 else "arguments"


def _guarded(ctx: Context, command: Command, options: Options, args: list[str]) -> int:
    try:
        ctx = _for_daemons(ctx, command, options)
        return command.run(ctx, options, args)
    except Failure as e:
        if e.text:
            ctx.complain(e.text)
        return e.code
    except WherryError as e:
        if ctx.debug:
            _trace(e)
        hint = _hint(ctx, e)
        if not command.prefixed:
            ctx.complain(indented(e.message) + hint)
            return 1
        ctx.complain(f"wherry: {indented(e.message)}{hint}\n\nRun '{ctx.path} --help' for more information")
        return USAGE_ERROR
    finally:
        ctx.close()


def _hint(ctx: Context, error: WherryError) -> str:
    """A hint about an error, on separate lines; empty if there is none."""
    from wherry.client.endpoint import CannotConnect

    words = error.message.lower()
    if ctx.path.endswith((" push", " pull")) and any(one in words for one in REFUSED):
        host = error.message.partition("(registry ")[2].partition(",")[0]
        return f"\nLog in with: wherry login{' ' if host else ''}{safe(host)}"
    if not isinstance(error, CannotConnect) or not error.message.startswith("Cannot connect"):
        return ""
    endpoint, is_default = ctx.find_endpoint()
    if endpoint.scheme != "unix":
        return ""
    place = "" if is_default else f" --host {safe(endpoint.host)}"
    return f"\nStart it with: wherry daemon start{place}"


def _for_daemons(ctx: Context, command: Command, options: Options) -> Context:
    """The context with the daemons that the command's own ``--context`` names, one or several."""
    wanted = ctx.wanted
    if command.several and options.given("context"):
        wanted = wanted.in_context(options.text("context"))
    text = wanted.context
    if "," not in text and text != "all":
        return ctx if wanted is ctx.wanted else ctx.derived(wanted)
    from wherry.cli.daemons import several

    if not command.several:
        several.refuse(ctx, ctx.path)
        return ctx
    if wanted.host:
        raise InvalidArgument("conflicting options: cannot specify both --host and --context")
    return ctx.derived(wanted, several=several.names(text, ctx.config_dir))


def _trace(error: WherryError) -> None:
    """Show where an error came from, for ``--debug``."""
    import traceback

    sys.stdout.flush()
    sys.stderr.write(safe("".join(traceback.format_exception(error))))


def _usage_error(text: str, path: str, usage: str, code: int) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"{safe(text)}\n\nUsage:  {path} {usage}\n\nRun '{path} --help' for more information\n")
    return code


def _no_such(found: commands.FoundCommand, words: list[str]) -> int:
    if found.used == len(words):
        return _help(tuple(words), asked=False)
    rest = words[found.used :]
    if rest[0] in ("--help", "-h"):
        return _help(tuple(words[: found.used]))
    if rest[0].startswith("-"):
        return _usage_error(f"unknown flag: {rest[0]}", found.path, "COMMAND", USAGE_ERROR)
    path = f"{found.path} {safe(rest[0])}"
    name = path.removeprefix("wherry ")
    if commands.is_planned(name):
        sys.stderr.write(f"wherry: '{name}' is not implemented yet\n")
        return USAGE_ERROR
    if found.used == 0:
        sys.stderr.write(
            f"wherry: '{name}' is not a wherry command.{commands.suggestion(rest[0])}\n\n"
            "Run 'wherry --help' for more information\n"
        )
        return 1
    close = commands.suggestion(rest[0], found.path.removeprefix("wherry "))
    sys.stderr.write(
        f"wherry: unknown command: {path}{close}\n\nUsage:  {found.path}\n\n"
        f"Run '{found.path} --help' for more information\n"
    )
    return 1


def _help(words: tuple[str, ...], *, asked: bool = True) -> int:
    from wherry.cli.help import show

    return show(words, global_flags(), asked=asked)
