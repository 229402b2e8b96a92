"""``wherry image diff``: the differences between two images."""

from __future__ import annotations

from wherry.cli.command import Command, Failure
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import STRING
from wherry.cli.render import units
from wherry.client import images, jsonwire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options

    Object = dict[str, Any]

_MARKS = {"added": "+", "removed": "-", "changed": "~"}


def diff(ctx: Context, options: Options, args: list[str]) -> int:
    layout = options.text("format") or "text"
    if layout not in ("text", "json"):
        raise Failure(f"invalid format {layout!r}: expected text or json")
    found = images.compare(ctx.api, args[0], args[1])
    if layout == "json":
        ctx.raw(jsonwire.dumps(found))
        return 0
    for line in _lines(found):
        ctx.line(line)
    return 0


def _lines(found: Object) -> Iterator[str]:
    layers = found["Layers"]
    shared = layers["Shared"]
    yield f"Layers: {len(shared)} shared, {units.size(sum(one['Size'] for one in shared))}"
    for mark, key in (("-", "OnlyFrom"), ("+", "OnlyTo")):
        for one in layers[key]:
            yield f"  {mark} {units.short_id(one['DiffId'])}  {units.size(one['Size'])}"
    for title, key in (("Configuration", "Configuration"), ("Packages", "Packages")):
        if found[key]:
            yield f"{title}:"
        for one in found[key]:
            yield "  " + _change(one.get("Key") or one.get("Name"), one["From"], one["To"])
    files = found["Files"]
    if files:
        counts = ", ".join(f"{sum(f['Kind'] == kind for f in files)} {kind}" for kind in _MARKS)
        yield f"Files: {counts}"
    for one in files:
        sizes = units.size(one["To"] or one["From"])
        if one["Kind"] == "changed":
            sizes = f"{units.size(one['From'])} -> {units.size(one['To'])}"
        yield f"  {_MARKS[one['Kind']]} {one['Path']}  {sizes}"


def _change(name: str, before: str | None, after: str | None) -> str:
    if before is None:
        return f"+ {name} {after}"
    if after is None:
        return f"- {name} {before}"
    return f"~ {name} {before} -> {after}"


DIFF = Command(
    "[OPTIONS] IMAGE IMAGE",
    diff,
    (Flag("format", "", STRING, "How to print it: text or json"),),
    least=2,
    most=2,
    complete="image image none",
    description="Show what makes the second image differ: layers, configuration, packages, files",
)
