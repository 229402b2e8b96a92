"""Lists of records: tables, templates, JSON lines.

Columns are formatted as by Go's ``text/tabwriter`` with Docker's settings: at least 10 wide, 3 apart. A
column's width applies to consecutive lines that have the column.
"""

from __future__ import annotations

from wherry.cli.command import Failure
from wherry.cli.console import one_line
from wherry.cli.render import template
from wherry.cli.render.template.execute import TemplateFailure, TemplateRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, Self

    from wherry.cli.command import Context
    from wherry.cli.daemons.several import DaemonAnswer

WIDTH_MIN, PADDING = 10, 3


class Row(TemplateRecord):
    """A record with column headers. ``HEADERS`` maps a field to its header; fields without one print their
    name's header as ``<no value>``, as Docker's do.

    ``context`` is the daemon of the record; it is a field like the others if several daemons were asked."""

    HEADERS: dict[str, str] = {}
    RAW = ""
    """The template of ``--format raw``, for kinds of objects that have one."""
    context = ""
    several = False

    def of(self, answer: DaemonAnswer) -> Self:
        """The same row with its daemon's name."""
        self.context, self.several = answer.name, answer.several
        return self

    def as_object(self) -> dict[str, Any]:
        found = super().as_object()
        return {"Context": self.context, **found} if self.several else found

    def value(self, name: str, args: Sequence[Any]) -> Any:
        if name == "Context":
            return one_line(self.context)
        if name not in self.FIELDS and name != "Label":
            raise KeyError(name)
        method = getattr(self, f"get_{name.lower()}")
        found = method(*args)
        return one_line(found) if isinstance(found, str) else found


class Header(TemplateRecord):
    """The header row: the value of every field in the first line of a table."""

    def __init__(self, headers: dict[str, str]) -> None:
        self._headers = headers

    def value(self, name: str, args: Sequence[Any]) -> Any:
        if name == "Label" and args:
            return str(args[0]).rpartition(".")[2].replace("-", " ").replace("_", " ")
        return self._headers.get(name, template.MISSING)

    def as_object(self) -> dict[str, Any]:
        return dict(self._headers)


def compile_format(text: str) -> template.Template:
    """:raises Failure: the format is not a valid template."""
    try:
        return template.compile(text)
    except template.TemplateError as e:
        raise Failure(f"failed to parse template: {e}") from e


def render(template_: template.Template, record: Any) -> str:
    """:raises Failure: the template uses a field that the record does not have."""
    try:
        return template_.render(record)
    except TemplateFailure as e:
        raise Failure(f"failed to execute template: {e}") from e


def split_format(layout: str, default: str) -> tuple[bool, str]:
    """Whether a ``--format`` means a table, and its template."""
    is_table = layout == "table" or layout.startswith("table ")
    text = default if layout == "table" else layout.removeprefix("table ") if is_table else layout
    if layout == "json":
        text = "{{json .}}"
    return is_table, text.strip(" ").replace("\\t", "\t").replace("\\n", "\n")


def quiet(given: str, column: str, raw: str) -> str:
    """The layout of ``-q``: ids alone, by the name that ``raw`` has for them where that was asked for.
    Another
    ``--format`` goes before, as in Docker's client."""
    if given == "raw":
        return f"{raw}: {{{{.{column}}}}}"
    return f"{{{{.{column}}}}}" if given in ("", "table") else given


def show(ctx: Context, rows: Iterable[Row], layout: str, *, default: str, headers: dict[str, str]) -> None:
    """Print rows in a ``--format``; ``default`` is the template of the plain table, which begins with the
    context where several daemons were asked.

    :raises Failure: the format is not a valid template, or uses a field that a row does not have.
    """
    if layout == "raw":
        rows = list(rows)
        layout = rows[0].RAW if rows else " "
    if ctx.several:
        default = "{{.Context}}\t" + default
    is_table, text = split_format(layout, default)
    compiled = compile_format(text)
    if not is_table:
        for row in rows:
            ctx.raw(render(compiled, row))
        return
    lines = [render(compiled, row) for row in rows]
    ctx.write(align([_header_line(compiled, headers | {"Context": "CONTEXT"}), *lines]))


def _header_line(compiled: template.Template, headers: dict[str, str]) -> str:
    """The first line; empty if the template has no columns."""
    try:
        return compiled.render(Header(headers), header=True)
    except TemplateFailure:
        return ""


def align(lines: Iterable[str], width_min: int = WIDTH_MIN) -> str:
    """Format tab-separated cells in columns."""
    cells = [line.split("\t") for text in lines for line in text.split("\n")]
    out: list[str] = []
    _columns(cells, 0, len(cells), [], out, width_min)
    return "".join(out)


def _columns(
    cells: list[list[str]], start: int, end: int, widths: list[int], out: list[str], width_min: int
) -> None:
    column = len(widths)
    this = start
    while this < end:
        if column >= len(cells[this]) - 1:
            this += 1
            continue
        _emit(cells, start, this, widths, out)
        start = this
        width = width_min
        while this < end and column < len(cells[this]) - 1:
            width = max(width, len(cells[this][column]) + PADDING)
            this += 1
        _columns(cells, start, this, [*widths, width], out, width_min)
        start = this
    _emit(cells, start, end, widths, out)


def _emit(cells: list[list[str]], start: int, end: int, widths: list[int], out: list[str]) -> None:
    for row in cells[start:end]:
        padded = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        out.append("".join(padded) + row[-1] + "\n")
