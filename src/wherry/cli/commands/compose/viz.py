"""``wherry compose alpha viz``: the services as a graph for Graphviz."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.composing.flags import DRY_RUN
from wherry.cli.composing.session import ComposeSession
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, INT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options
    from wherry.compose.project import Project


def viz(ctx: Context, options: Options, args: list[str]) -> int:
    project = ComposeSession(ctx, options).project()
    indent = (" " if options.on("spaces") else "\t") * max(0, options.number("indentation-size"))
    lines = [f'digraph "{_text(project.name)}" {{', f"{indent}layout=dot;"]
    for name in project.services:
        label = f'<font point-size="15">{_html(name)}</font>' + _more(project, name, options)
        lines.append(f'{indent}"{_text(name)}" [style="filled" label=<{label}>];')
    lines.append("")
    for name in project.services:
        needs = sorted(project.dependencies(name))
        lines += [f'{indent}"{_text(name)}" -> "{_text(other)}";' for other in needs]
    ctx.write("\n".join([*lines, "}"]) + "\n")
    return 0


def _text(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')


def _html(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _more(project: Project, name: str, options: Options) -> str:
    from wherry.compose.project import image_of

    service = project.services[name]
    found: list[tuple[str, list[str]]] = []
    if options.on("networks"):
        found.append(("Networks", sorted(service.get("networks") or {})))
    if options.on("ports"):
        ports = [
            f"{one.get('published') or ''}:{one['target']} ({one['protocol']}, {one['mode']})"
            for one in service.get("ports") or ()
        ]
        found.append(("Ports", ports))
    if options.on("image"):
        found.append(("Image", [image_of(project, name)]))
    return "".join(
        "<font "
        f'point-size="10"><br/><br/><b>{title}:</b>{"".join(f"<br/>{_html(one)}" for one in values)}</font>'
        for title, values in found
        if values
    )


VIZ = Command(
    "[OPTIONS]",
    viz,
    (
        DRY_RUN,
        Flag("image", "", BOOL, "Include service's image name in output graph"),
        Flag(
            "indentation-size",
            "",
            INT,
            "Number of tabs or spaces to use for indentation",
            default=1,
            shown="1",
        ),
        Flag("networks", "", BOOL, "Include service's attached networks in output graph"),
        Flag("ports", "", BOOL, "Include service's exposed ports in output graph"),
        Flag("spaces", "", BOOL, "Indent with spaces instead of tabs"),
    ),
)
