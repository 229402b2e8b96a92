"""One request to several daemons at the same time: ``--context a,b`` or ``all`` on commands that only read.

Every daemon has its own thread and session. A daemon that cannot be reached is reported on stderr and does
not delay the others: it has :data:`PATIENCE` seconds to answer a ping. Commands are written for any number of
daemons: with one daemon :func:`ask` is a plain call.
"""

from __future__ import annotations

import os
import time

from wherry.cli.command import Context, Failure
from wherry.cli.console import indented
from wherry.client import discovery
from wherry.errors import InvalidArgument, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from queue import Queue
    from typing import Any

    News = tuple[str, str, Any]
    """A message from a daemon's thread: the context; ``up``, ``piece``, ``end`` or ``failed``; the piece or
    the error."""

PATIENCE = 5.0
"""Seconds that a daemon may take to answer a ping."""
PATIENCE_SSH = 15.0
"""The same over ssh, which takes longer to connect."""
WAITING = 64
EVERY = "all"


class DaemonAnswer:
    """The answer of one daemon. ``several``: other daemons were asked as well, so its name is shown."""

    __slots__ = ("name", "several", "value")

    def __init__(self, name: str, value: Any, *, several: bool) -> None:
        self.name, self.value, self.several = name, value, several


def names(text: str, directory: str) -> list[str]:
    """The contexts in ``--context`` if there are several; empty for a single one.

    ``all`` means every context, and ``default`` if there is such a daemon; but if another client has created
    a context with the name ``all``, it means that one.

    :raises InvalidArgument: a name between commas is missing.
    """
    from wherry.client.contexts import ContextDirectory

    if text == EVERY and not ContextDirectory(directory).exists(EVERY):
        found = set(ContextDirectory(directory).names())
        if discovery.host_variable(os.environ) or any(map(os.path.exists, discovery.CANDIDATES)):
            found.add(discovery.DEFAULT)
        if not found:
            raise InvalidArgument("cannot ask all contexts: no contexts exist")
    elif "," in text:
        found = {name.strip() for name in text.split(",")}
        if "" in found:
            raise InvalidArgument(f"cannot use --context {text}: a context name is empty")
    else:
        return []
    from wherry.cli.render.order import natural

    return sorted(found, key=natural)


def member(ctx: Context, name: str) -> Context:
    """A context for one of several daemons. No daemon is started for it."""
    wanted = discovery.WantedDaemon(context=name)
    return ctx.derived(wanted, start_daemon=False, connect_timeout=PATIENCE)


def ask(ctx: Context, work: Callable[[Context], Any]) -> Answers:
    """Ask the daemon, or several in parallel, and wait for the answers.

    :raises WherryError: the one daemon's failure.
    :raises Failure: none of several answered.
    """
    if not ctx.several:
        return Answers([DaemonAnswer(ctx.context_name, work(ctx), several=False)], [])
    daemons = Daemons(ctx)
    found = dict(daemons.stream(lambda member: [work(member)]))
    problems = [daemons.failed[name] for name in ctx.several if name in daemons.failed]
    if not found:
        raise Failure("\n".join(problems))
    ordered = [DaemonAnswer(name, found[name], several=True) for name in ctx.several if name in found]
    return Answers(ordered, problems)


class Answers:
    """The answers, ordered by context, and the errors of the daemons that did not answer."""

    def __init__(self, answers: list[DaemonAnswer], problems: list[str]) -> None:
        self._answers, self.problems = answers, problems

    def __iter__(self) -> Iterator[DaemonAnswer]:
        return iter(self._answers)

    def finish(self, ctx: Context) -> int:
        """Print the errors, after everything else was shown. :returns: the exit code."""
        for problem in self.problems:
            ctx.complain(indented(problem))
        return 1 if self.problems else 0


class Daemons:
    """Several daemons, and their data as it arrives.

    ``problems`` are error lines in the order of arrival, ``failed`` the same by context; ``left`` are the
    contexts that have not ended.
    """

    def __init__(self, ctx: Context) -> None:
        self._members = {name: member(ctx, name) for name in ctx.several}
        self.problems: list[str] = []
        self.failed: dict[str, str] = {}
        self.left = set(self._members)
        self._silent: dict[str, float] = {}
        """The daemons that have not answered yet, and their deadlines."""

    def stream(
        self, work: Callable[[Context], Iterable[Any]], on_problem: Callable[[str], None] | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Yield (context, piece) for everything that ``work`` yields, as it arrives, until all daemons have
        ended."""
        from queue import Empty, Queue
        from threading import Thread

        arrived: Queue[News] = Queue(WAITING)
        for name, member in self._members.items():
            Thread(target=_follow, args=(name, member, work, arrived), daemon=True).start()
            self._silent[name] = time.monotonic() + _patience(member)
        while self.left:
            before = len(self.problems)
            try:
                name, what, value = arrived.get(timeout=self._timeout())
            except Empty:
                self._give_up()
            else:
                if name not in self.left:
                    continue  # too late
                self._silent.pop(name, None)
                if what == "piece":
                    yield name, value
                elif what == "end":
                    self.left.discard(name)
                elif what == "failed":
                    self._failed(name, value)
            for problem in self.problems[before:]:
                if on_problem is not None:
                    on_problem(problem)

    def _timeout(self) -> float | None:
        if not self._silent:
            return None
        return max(0.0, min(self._silent.values()) - time.monotonic())

    def _give_up(self) -> None:
        for name in [name for name, late in self._silent.items() if late <= time.monotonic()]:
            patience = _patience(self._members[name])
            self._failed(name, InvalidArgument(f"cannot connect: no answer within {patience:g} s"))

    def _failed(self, name: str, failure: BaseException) -> None:
        if not isinstance(failure, (WherryError, OSError, ValueError)):
            raise failure
        text = failure.message if isinstance(failure, WherryError) else str(failure)
        self.failed[name] = f"wherry: context {name}: {text[:1].lower()}{text[1:]}"
        self.problems.append(self.failed[name])
        self.left.discard(name)
        self._silent.pop(name, None)


def _patience(member: Context) -> float:
    try:
        scheme = member.find_endpoint()[0].scheme
    except WherryError:
        return PATIENCE
    return PATIENCE_SSH if scheme == "ssh" else PATIENCE


def _follow(
    name: str, member: Context, work: Callable[[Context], Iterable[Any]], arrived: Queue[News]
) -> None:
    """A daemon's thread. Nobody waits for its end."""
    try:
        _ = member.api.ping
        arrived.put((name, "up", None))
        for piece in work(member):
            arrived.put((name, "piece", piece))
    except BaseException as e:  # The waiting thread raises it.
        arrived.put((name, "failed", e))
    else:
        arrived.put((name, "end", None))
    finally:
        member.close()


def refuse(ctx: Context, path: str) -> None:
    """:raises InvalidArgument: several contexts are named, but the command uses one daemon."""
    text = ctx.wanted.context
    if names(text, ctx.config_dir):
        raise InvalidArgument(
            f"cannot use --context {text}: '{path}' speaks to one daemon; several can be asked by "
            f"{', '.join(READERS)}"
        )


READERS: Sequence[str] = ("ps", "images", "stats", "events", "logs", "system df", "version", "info")
