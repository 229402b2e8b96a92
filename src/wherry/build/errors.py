"""What is wrong in a Dockerfile, with the lines it is wrong in."""

from __future__ import annotations

from wherry.build.instructions import Location
from wherry.errors import InvalidArgument

_AROUND = 2
"""Lines of the excerpt before and after the marked ones."""
_MARKED_MAX = 20
_WIDTH_MAX = 200


class DockerfileError(InvalidArgument):
    """``reason`` alone, and the whole text: the reason, and the excerpt below it."""

    def __init__(self, reason: str, location: Location | None, *, name: str = "", source: str = "") -> None:
        self.reason, self.location, self.name = reason, location, name
        text = reason
        if location is not None:
            text = f"dockerfile parse error on line {location.first}: {reason}"
            if source:
                text += "\n" + excerpt(source, location, name or "Dockerfile")
        super().__init__(text)

    def within(self, name: str, source: str) -> DockerfileError:
        """The same with the Dockerfile it is in."""
        return DockerfileError(self.reason, self.location, name=name, source=source)


def excerpt(source: str, location: Location, name: str) -> str:
    """The lines at ``location`` marked with ``>>>``, and some around them::

    Dockerfile:2
    --------------------
       1 |     FROM busybox
       2 | >>> RUNN true
    --------------------
    """
    lines = source.removesuffix("\n").split("\n")
    first, last = location.first, min(location.last, location.first + _MARKED_MAX - 1)
    rows = [f"{name}:{first}", "-" * 20]
    for number in range(max(1, first - _AROUND), min(len(lines), last + _AROUND) + 1):
        mark = ">>>" if first <= number <= last else "   "
        line = printable(lines[number - 1].removesuffix("\r"))
        rows.append(f"{number:4d} | {mark} {line}".rstrip())
    rows.append("-" * 20)
    return "\n".join(rows)


def printable(line: str) -> str:
    """A Dockerfile is somebody's text: it does not get to steer the terminal that shows it."""
    cut = line[:_WIDTH_MAX] + ("…" if len(line) > _WIDTH_MAX else "")
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in cut)
