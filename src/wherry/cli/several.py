"""One question to several daemons at the same time: ``--context a,b`` or ``all`` on commands that only read.

Every daemon has a thread and a session of its own. One that cannot be reached is named on stderr and is not
in the way of the others: it has :data:`PATIENCE` seconds to answer a ping, whatever it does with the
connection. Commands are written for any number of daemons: :func:`ask` with one is a call.
"""

from __future__ import annotations

import os
import time

from wherry.cli.command import Failure, safe
from wherry.client import discovery
from wherry.errors import InvalidArgument, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from queue import Queue
    from typing import Any

    from wherry.cli.command import Context

    News = tuple[str, str, Any]
    """A daemon's context; ``up``, ``piece``, ``end`` or ``failed``; the piece or the failure."""

PATIENCE = 5.0
"""Seconds that a daemon may take to answer at all."""
PATIENCE_SSH = 15.0
"""The same for one behind ssh, where keys are exchanged first."""
WAITING = 64
EVERY = "all"


class Answer:
    """What one daemon said. ``several``: whether others were asked too, so that its name matters."""

    __slots__ = ("name", "several", "value")

    def __init__(self, name: str, value: Any, *, several: bool) -> None:
        self.name, self.value, self.several = name, value, several


def names(text: str, directory: str) -> list[str]:
    """The contexts that ``--context`` names when it names several; empty when it is one.

    ``all`` is every context, and ``default`` where it has a daemon to speak of; a context that another client
    has called ``all`` is meant before that.

    :raises InvalidArgument: a name between commas is missing.
    """
    from wherry.client.contexts import Store

    if text == EVERY and not Store(directory).exists(EVERY):
        found = set(Store(directory).names())
        if discovery.host_variable(os.environ) or any(map(os.path.exists, discovery.CANDIDATES)):
            found.add(discovery.DEFAULT)
        if not found:
            raise InvalidArgument("cannot ask all contexts: there are none")
    elif "," in text:
        found = {name.strip() for name in text.split(",")}
        if "" in found:
            raise InvalidArgument(f"cannot use --context {text}: a context name is empty")
    else:
        return []
    from wherry.cli.commands.volume import natural

    return sorted(found, key=natural)


def ask(ctx: Context, work: Callable[[Context], Any]) -> Answers:
    """Ask the daemon, or all of several at once, and wait for what they say.

    :raises WherryError: the one daemon's failure.
    :raises Failure: none of several answered.
    """
    if not ctx.several:
        return Answers([Answer(ctx.context_name, work(ctx), several=False)], [])
    daemons = Daemons(ctx)
    found = dict(daemons.stream(lambda member: [work(member)]))
    problems = [daemons.failed[name] for name in ctx.several if name in daemons.failed]
    if not found:
        raise Failure("\n".join(problems))
    ordered = [Answer(name, found[name], several=True) for name in ctx.several if name in found]
    return Answers(ordered, problems)


class Answers:
    """The answers, ordered by context, and what became of the daemons that gave none."""

    def __init__(self, answers: list[Answer], problems: list[str]) -> None:
        self._answers, self.problems = answers, problems

    def __iter__(self) -> Iterator[Answer]:
        return iter(self._answers)

    def finish(self, ctx: Context) -> int:
        """Name what failed, after everything else was shown; the exit code."""
        for problem in self.problems:
            ctx.complain(safe(problem))
        return 1 if self.problems else 0


class Daemons:
    """Several daemons, and what they send as it comes.

    ``problems`` are lines for stderr as they came, ``failed`` the same by context; ``left`` are the contexts
    from which there is more to come.
    """

    def __init__(self, ctx: Context) -> None:
        self._members = {name: ctx.member(name) for name in ctx.several}
        self.problems: list[str] = []
        self.failed: dict[str, str] = {}
        self.left = set(self._members)
        self._silent: dict[str, float] = {}
        """Those that have not answered yet, and when that is too late."""

    def stream(
        self, work: Callable[[Context], Iterable[Any]], on_problem: Callable[[str], None] | None = None
    ) -> Iterator[tuple[str, Any]]:
        """(context, piece) of all that ``work`` finds, as it comes, until all have come to their end."""
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
    """A daemon's thread. It may outlive the interest in it: nobody waits for it."""
    try:
        _ = member.api.ping
        arrived.put((name, "up", None))
        for piece in work(member):
            arrived.put((name, "piece", piece))
    except BaseException as e:  # It belongs to the thread that waits.
        arrived.put((name, "failed", e))
    else:
        arrived.put((name, "end", None))


def refuse(ctx: Context, path: str) -> None:
    """:raises InvalidArgument: several contexts are named, and the command speaks to one daemon."""
    text = ctx.wanted.context
    if names(text, ctx.config_dir):
        raise InvalidArgument(
            f"cannot use --context {text}: '{path}' speaks to one daemon; several can be asked by "
            f"{', '.join(READERS)}"
        )


READERS: Sequence[str] = ("ps", "images", "stats", "events", "logs", "system df", "version", "info")
