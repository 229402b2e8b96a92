"""``wherry``: global flags, the command's name, and what becomes of an error.

The command's module is imported once its name is known, so ``wherry version`` never pays for ``run``.
"""

from __future__ import annotations

import os
import sys

from wherry.cli import commands
from wherry.cli.command import UNLIMITED, Command, Context, Failure, safe
from wherry.cli.flags import Flag, FlagError, HelpWanted, parse
from wherry.cli.values import BOOL, LIST, STRING
from wherry.client.discovery import Wanted, config_dir
from wherry.errors import InvalidArgument, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.cli.flags import Options

INTERRUPTED = 130
USAGE_ERROR = 125
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
    """End as any filter does whose reader went away, without a word."""
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
    context = _context(options)
    try:
        return dispatch(context, words)
    finally:
        context.close()


def _context(options: Options) -> Context:
    hosts = options.many("host")
    wanted = Wanted(
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
    """Find the command that ``words`` begin with, and run it with the rest."""
    if words[0] == "help":
        return _help(tuple(words[1:]))
    found = commands.find(words)
    if found.entry is None:
        return _no_such(found, words)
    command = commands.load(found.entry)
    ctx.path = found.path
    try:
        options, args = parse(command.flags, words[found.used :], interspersed=command.interspersed)
    except HelpWanted:
        return _help(tuple(words[: found.used]))
    except FlagError as e:
        return _usage_error(str(e), ctx.path, command.usage, USAGE_ERROR)
    problem = wrong_count(command, len(args))
    if problem:
        return _usage_error(f"wherry: '{ctx.path}' {problem}", ctx.path, command.usage, 1)
    return _guarded(ctx, command, options, args)


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
        _choose_daemons(ctx, command, options)
        return command.run(ctx, options, args)
    except Failure as e:
        if e.text:
            ctx.complain(safe(e.text))
        return e.code
    except WherryError as e:
        if ctx.debug:
            _trace(e)
        if not command.prefixed:
            ctx.complain(safe(e.message))
            return 1
        ctx.complain(f"wherry: {safe(e.message)}\n\nRun '{ctx.path} --help' for more information")
        return USAGE_ERROR


def _choose_daemons(ctx: Context, command: Command, options: Options) -> None:
    """Take ``--context`` apart where it names several daemons."""
    if command.several and options.given("context"):
        ctx.wanted.context = options.text("context")
    text = ctx.wanted.context
    if "," not in text and text != "all":
        return
    from wherry.cli import several

    if not command.several:
        several.refuse(ctx, ctx.path)
        return
    if ctx.wanted.host:
        raise InvalidArgument("conflicting options: cannot specify both --host and --context")
    ctx.several = several.names(text, ctx.config_dir)


def _trace(error: WherryError) -> None:
    """Show where an error came from, for ``--debug``."""
    import traceback

    sys.stdout.flush()
    sys.stderr.write(safe("".join(traceback.format_exception(error))))


def _usage_error(text: str, path: str, usage: str, code: int) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"{safe(text)}\n\nUsage:  {path} {usage}\n\nRun '{path} --help' for more information\n")
    return code


def _no_such(found: commands.Found, words: list[str]) -> int:
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
    sys.stderr.write(
        f"wherry: unknown command: {path}\n\nUsage:  {found.path}\n\n"
        f"Run '{found.path} --help' for more information\n"
    )
    return 1


def _help(words: tuple[str, ...], *, asked: bool = True) -> int:
    from wherry.cli.help import show

    return show(words, global_flags(), asked=asked)
