"""``wherry compose logs|events``."""

from __future__ import annotations

import heapq

from wherry.cli.command import UNLIMITED, Command
from wherry.cli.composing.flags import DRY_RUN, INDEX
from wherry.cli.composing.session import ComposeSession
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.times import timestamp
from wherry.cli.grammar.values import BOOL, STRING
from wherry.client import containers, jsonwire, system
from wherry.compose import labels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.composing.logs import Printer
    from wherry.cli.grammar.flags import Options
    from wherry.compose.state import ProjectContainer

    Object = dict[str, Any]


def logs(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.composing.logs import Printer

    query: Object = {
        "since": timestamp(options.text("since"), 'invalid value for "since"'),
        "until": timestamp(options.text("until"), 'invalid value for "until"'),
        "tail": options.text("tail"),
    }
    with ComposeSession(ctx, options) as session:
        project = session.name()
        found = session.containers(args, project=project)
        if options.number("index"):
            found = [one for one in found if one.number == options.number("index")]
        names = {one.id: one.short_name(project) for one in found}
        printer = Printer(
            list(names.values()), prefix=not options.on("no-log-prefix"), colour=not options.on("no-color")
        )
        if options.on("follow"):
            from wherry.cli.composing.following import Following

            following = Following(
                session.sessions, project, printer, services=args, timestamps=options.on("timestamps")
            )
            following.run(found, query)
        else:
            _print(session, found, names, printer, query, timestamps=options.on("timestamps"))
        return 0


def _print(
    session: ComposeSession,
    found: list[ProjectContainer],
    names: dict[str, str],
    printer: Printer,
    query: Object,
    *,
    timestamps: bool,
) -> None:
    """Print all existing output, sorted by time."""
    from contextlib import ExitStack

    from wherry.cli.terminal.manylogs import LogSource

    with ExitStack() as stack:
        sources = []
        for one in found:
            api = stack.enter_context(session.sessions.lend())
            tty = bool((containers.inspect(api, one.id).get("Config") or {}).get("Tty"))
            response = containers.logs(api, one.id, timestamps=True, **query)
            sources.append(LogSource(names[one.id], b"", tty, response))
        streams = (source.stamped(number) for number, source in enumerate(sources))
        for moment, number, descriptor, text in heapq.merge(*streams, key=lambda line: line[:2]):
            line = moment + b" " + text if timestamps else text
            printer.lines(sources[number].name, [(descriptor, line)])


def events(ctx: Context, options: Options, args: list[str]) -> int:
    """Print events of the project's containers, until ``--until`` or an interrupt."""
    from datetime import UTC, datetime

    session = ComposeSession(ctx, options)
    project = session.name()
    given = {"type": ["container"], "label": [f"{labels.PROJECT}={project}"]}
    found = system.events(
        ctx.api,
        since=timestamp(options.text("since"), 'invalid value for "since"'),
        until=timestamp(options.text("until"), 'invalid value for "until"'),
        given=given,
    )
    import sys

    for event in found:
        actor = event.get("Actor") or {}
        attributes = dict(actor.get("Attributes") or {})
        service = attributes.get(labels.SERVICE, "")
        if attributes.get(labels.ONEOFF) == "True" or (args and service not in args):
            continue
        kept = {k: attributes[k] for k in sorted(attributes) if not k.startswith(labels.PREFIX)}
        moment = int(event.get("timeNano") or 0)
        at = datetime.fromtimestamp(moment // 10**9, UTC)
        action = str(event.get("Action") or "")
        if options.on("json"):
            shown: Object = {"action": action, "attributes": kept, "id": actor.get("ID"), "service": service}
            shown |= {"time": f"{at:%Y-%m-%dT%H:%M:%S}.{moment % 10**9:09d}Z", "type": event.get("Type")}
            ctx.raw(jsonwire.dumps(shown))
        else:
            more = ", ".join(f"{key}={value}" for key, value in kept.items())
            local = at.astimezone()
            ctx.line(
                f"{local:%Y-%m-%d %H:%M:%S}.{moment % 10**9 // 1000:06d} container {action} "
                f"{actor.get('ID')} ({more})"
            )
        sys.stdout.flush()
    return 0


_WHEN = '(e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)'
LOGS = Command(
    "[OPTIONS] [SERVICE...]",
    logs,
    (
        DRY_RUN,
        Flag("follow", "f", BOOL, "Follow log output"),
        INDEX,
        Flag("no-color", "", BOOL, "Produce monochrome output"),
        Flag("no-log-prefix", "", BOOL, "Don't print prefix in logs"),
        Flag("since", "", STRING, f"Show logs since timestamp {_WHEN}"),
        Flag(
            "tail",
            "n",
            STRING,
            "Number of lines to show from the end of the logs for each container",
            default="all",
            shown='"all"',
        ),
        Flag("timestamps", "t", BOOL, "Show timestamps"),
        Flag("until", "", STRING, f"Show logs before a timestamp {_WHEN}"),
    ),
    most=UNLIMITED,
)
EVENTS = Command(
    "[OPTIONS] [SERVICE...]",
    events,
    (
        DRY_RUN,
        Flag("json", "", BOOL, "Output events as a stream of json objects"),
        Flag("since", "", STRING, "Show all events created since timestamp"),
        Flag("until", "", STRING, "Stream events until this timestamp"),
    ),
    most=UNLIMITED,
)
