"""What ``--call=check|outline|targets`` prints."""

from __future__ import annotations

from wherry.cli.console import one_line
from wherry.cli.render import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context

    Object = dict[str, Any]


def show(ctx: Context, call: str, result: Object) -> int:
    """The exit code: 1 for findings that the Dockerfile declares to be errors."""
    answer = result.get("Call") or {}
    if call == "check":
        return _check(ctx, answer)
    if call == "targets":
        lines = ["\t".join(("TARGET", "DESCRIPTION"))]
        for one in answer.get("Targets") or ():
            name = str(one["Name"]) + (" (default)" if one.get("Default") else "")
            lines.append(f"{one_line(name)}\t{one_line(str(one.get('Description', '')))}")
        ctx.write(table.align(lines))
        return 0
    _outline(ctx, answer)
    return 0


def _check(ctx: Context, answer: Object) -> int:
    found = answer.get("Findings") or []
    if not found:
        ctx.say("Check complete, no warnings found.")
        return 0
    noun = "warning has" if len(found) == 1 else "warnings have"
    ctx.say(f"Check complete, {len(found)} {noun} been found!")
    for one in found:
        ctx.say()
        ctx.line(f"WARNING: {one['Rule']} - {one.get('URL', '')}")
        ctx.say(str(one.get("Description", "")))
        ctx.say(str(one["Detail"]))
        ctx.say(str(one.get("Excerpt", "")))
    return 1


def _outline(ctx: Context, answer: Object) -> None:
    ctx.line(f"TARGET:      {answer.get('Target', '')}")
    if answer.get("Description"):
        ctx.line(f"DESCRIPTION: {answer['Description']}")
    sections = (
        ("BUILD ARG", "Arguments", ("Name", "Value", "Description")),
        ("SECRET", "Secrets", ("Name", "Required")),
        ("SSH", "SSH", ("Name", "Required")),
        ("CACHE MOUNT", "Caches", ("Name",)),
    )
    for title, member, keys in sections:
        items = answer.get(member) or []
        if not items:
            continue
        ctx.say()
        head = [title, *(key.upper() for key in keys[1:])]
        rows = ["\t".join(head)]
        rows += ["\t".join(one_line(_cell(one.get(key))) for key in keys) for one in items]
        ctx.write(table.align(rows))


def _cell(value: object) -> str:
    return {True: "yes", False: ""}.get(value, str(value)) if isinstance(value, bool) else str(value or "")
