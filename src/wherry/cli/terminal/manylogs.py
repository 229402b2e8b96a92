"""Several containers' logs at once: whole lines, each behind its container's name."""

from __future__ import annotations

import heapq
import sys

from wherry.cli.console import may_colour, one_line
from wherry.cli.daemons.several import ask
from wherry.client import containers, streams
from wherry.client.files import write_all
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import queue
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from wherry.cli.command import Context

    Object = dict[str, Any]
    Line = tuple[int, bytes]
    """The descriptor it belongs to (1 or 2), and the line without its end."""

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
LINE_MAX = 1 << 20
"""Bytes of a line after which it is shown though its end has not come."""
WAITING = 64


class LogSource:
    """One container: its prefix, and its log as it comes."""

    def __init__(
        self,
        name: str,
        prefix: bytes,
        tty: bool,
        chunks: Iterable[bytes],
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self.prefix, self._chunks = name, prefix, chunks
        self.close = close
        """Lets go of where the log comes from."""
        self._found: list[Line] = []
        self._rest = {1: b"", 2: b""}
        self._sink: Any = streams.Demultiplexer(self._out, self._err)
        if tty:
            self._sink = streams.Raw(self._out)

    def _out(self, piece: memoryview) -> None:
        self._take(1, piece)

    def _err(self, piece: memoryview) -> None:
        self._take(2, piece)

    def _take(self, descriptor: int, piece: memoryview) -> None:
        lines = (self._rest[descriptor] + bytes(piece)).split(b"\n")
        rest = lines.pop()
        if len(rest) > LINE_MAX:
            lines.append(rest)
            rest = b""
        self._rest[descriptor] = rest
        self._found += [(descriptor, line) for line in lines]

    def batches(self) -> Iterator[list[Line]]:
        """Lines as they come, many at a time; what has no end comes last."""
        for chunk in self._chunks:
            self._sink.feed(chunk)
            if self._found:
                found, self._found = self._found, []
                yield found
        rest = [(descriptor, line) for descriptor, line in self._rest.items() if line]
        if rest:
            yield rest

    def stamped(self, number: int) -> Iterator[tuple[bytes, int, int, bytes]]:
        """(time, the source's number, descriptor, line), of a log that was asked for with times."""
        last = b""
        for batch in self.batches():
            for descriptor, line in batch:
                moment, _, text = line.partition(b" ")
                # Both streams count as one sequence, so that one that is a little behind keeps its place.
                last = max(last, moment)
                yield last, number, descriptor, text


def show(ctx: Context, names: Sequence[str], *, follow: bool, timestamps: bool, **query: Any) -> int:
    """Print all of them: in the order of time, or with ``follow`` as lines come."""
    sources, code = _open(ctx, names, follow=follow, timestamps=timestamps or not follow, **query)
    sys.stdout.flush()
    try:
        return max(code, _follow(ctx, sources) if follow else _merge(sources, timestamps=timestamps))
    finally:
        for source in sources:
            source.close()


def _merge(sources: Sequence[LogSource], *, timestamps: bool) -> int:
    merged = heapq.merge(*(s.stamped(n) for n, s in enumerate(sources)), key=lambda found: found[:2])
    with _Writer() as writer:
        for moment, number, descriptor, text in merged:
            line = moment + b" " + text if timestamps else text
            writer.add(descriptor, sources[number].prefix + line + b"\n")
    return 0


def _open(ctx: Context, names: Sequence[str], **query: Any) -> tuple[list[LogSource], int]:
    """Every log that can be had, of every daemon that is asked; the others are named on stderr."""
    answers = ask(ctx, lambda one: _find(one, names, **query))
    code = answers.finish(ctx)
    found: list[tuple[str, Object, Any]] = []
    for answer in answers:
        logs, problems = answer.value
        for problem in problems:
            code = 1
            ctx.complain(f"wherry: context {answer.name}: {problem}" if answer.several else problem)
        found += [(f"{answer.name}/" if answer.several else "", *log) for log in logs]
    shown = [where + str(c.get("Name") or c["Id"][:12]).removeprefix("/") for where, c, _ in found]
    sources = []
    for name, prefix, (_, container, response) in zip(shown, prefixes(shown), found, strict=True):
        tty = bool((container.get("Config") or {}).get("Tty"))
        sources.append(
            LogSource(name, prefix.encode("utf-8", "replace"), tty, response, response.connection.close)
        )
    return sources, code


def _find(ctx: Context, names: Sequence[str], **query: Any) -> tuple[list[tuple[Object, Any]], list[str]]:
    """One daemon's containers and their logs, and why others cannot be had."""
    found: list[tuple[Object, Any]] = []
    problems = []
    for name in names:
        try:
            container = containers.inspect(ctx.api, name)
            response = containers.logs(ctx.api, container["Id"], **query)
            ctx.api.give_away(response)  # it is read when all daemons have answered
            found.append((container, response))
        except WherryError as e:
            problems.append(f"{name}: {e.message}")
    return found, problems


def prefixes(names: Sequence[str]) -> list[str]:
    """What lines of several sources begin with: names of one width, each in its colour on a terminal."""
    shown = [one_line(name) for name in names]
    width = max(map(len, shown), default=0)
    plain = [f"{name:<{width}} | " for name in shown]
    if not may_colour(1):
        return plain
    return [f"\x1b[{COLOURS[n % len(COLOURS)]}m{text}\x1b[0m" for n, text in enumerate(plain)]


def _follow(ctx: Context, sources: Sequence[LogSource]) -> int:
    import queue
    import threading

    arrived: queue.Queue[tuple[LogSource, list[Line] | BaseException | None]] = queue.Queue(WAITING)
    for source in sources:
        threading.Thread(target=_read, args=(source, arrived), daemon=True).start()
    left, code = len(sources), 0
    while left:
        source, what = arrived.get()
        if what is None:
            left -= 1
        elif isinstance(what, (WherryError, OSError)):
            left, code = left - 1, 1
            text = what.message if isinstance(what, WherryError) else str(what)
            ctx.complain(f"{source.name}: {text}")
        elif isinstance(what, BaseException):
            raise what
        else:
            with _Writer() as writer:
                for descriptor, line in what:
                    writer.add(descriptor, source.prefix + line + b"\n")
    return code


def _read(
    source: LogSource, arrived: queue.Queue[tuple[LogSource, list[Line] | BaseException | None]]
) -> None:
    try:
        for batch in source.batches():
            arrived.put((source, batch))
    except BaseException as e:  # It belongs to the thread that waits.
        arrived.put((source, e))
    else:
        arrived.put((source, None))


class _Writer:
    """Gathers neighbouring lines of one descriptor into one write."""

    def __init__(self) -> None:
        self._descriptor, self._pieces, self._size = 1, [b""], 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_details: object) -> None:
        self._flush()

    def add(self, descriptor: int, line: bytes) -> None:
        if descriptor != self._descriptor or self._size > 1 << 16:
            self._flush()
            self._descriptor = descriptor
        self._pieces.append(line)
        self._size += len(line)

    def _flush(self) -> None:
        pieces, self._pieces, self._size = self._pieces, [], 0
        write_all(self._descriptor, b"".join(pieces))
