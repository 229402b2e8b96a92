"""``wherry image log|rollback|tree``: earlier targets of names, rolling back, and shared layers."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.grammar.common import FORMAT_TABLE, NO_TRUNC
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL
from wherry.cli.render import table, units
from wherry.cli.render.rows import fields
from wherry.cli.render.table import Row
from wherry.client import images

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options

    Object = dict[str, Any]

_BAR = 30


class ImageVersionLine(Row):
    """A line of ``image log``: one of ``/images/{name}/versions``."""

    TYPE = "formatter.versionContext"
    FIELDS = fields("By ID Since State Until Version Why")
    HEADERS = {
        "Version": "VERSION",
        "ID": "IMAGE ID",
        "Since": "SINCE",
        "Until": "UNTIL",
        "By": "BY",
        "Why": "WHY",
        "State": "STATE",
    }
    TABLE = "{{.Version}}\t{{.ID}}\t{{.Since}}\t{{.By}}\t{{.Why}}\t{{.State}}"

    def __init__(self, version: Object, current: str, *, truncate: bool) -> None:
        self.v, self.current, self.truncate = version, current, truncate

    def get_version(self) -> str:
        return f"@{{{self.v.get('Version')}}}"

    def get_id(self) -> str:
        digest = str(self.v.get("Id") or "")
        return units.short_id(digest) if self.truncate else digest

    def get_since(self) -> str:
        return self._moment("Since")

    def get_until(self) -> str:
        return self._moment("Until")

    def _moment(self, member: str) -> str:
        text = str(self.v.get(member) or "")
        return units.ago(units.parse_time(text)) if text and self.truncate else text

    def get_by(self) -> str:
        return str(self.v.get("By") or "")

    def get_why(self) -> str:
        return str(self.v.get("Why") or "")

    def get_state(self) -> str:
        if not self.v.get("Present"):
            return "removed"
        return "current" if self.v.get("Id") == self.current else "kept"


def log(ctx: Context, options: Options, args: list[str]) -> int:
    layout = options.text("format") or "table"
    if options.on("quiet"):
        layout = table.quiet(options.text("format"), "ID", "image_id")
    truncate = not options.on("no-trunc")
    found = images.versions(ctx.api, args[0])
    current = str(found[0].get("Id")) if found else ""
    rows = [ImageVersionLine(version, current, truncate=truncate) for version in found]
    table.show(ctx, rows, layout, default=ImageVersionLine.TABLE, headers=ImageVersionLine.HEADERS)
    return 0


def rollback(ctx: Context, options: Options, args: list[str]) -> int:
    answer = images.rollback(ctx.api, args[0], args[1] if len(args) > 1 else "1")
    ctx.line(f"{args[0]}: {answer.get('From')} -> {answer.get('Id')}")
    return 0


class _Node:
    """A layer and the layers on top of it; ``images`` have it as their last layer."""

    def __init__(self, layer: str = "", size: int = 0) -> None:
        self.layer, self.size = layer, size
        self.images: list[str] = []
        self.children: dict[str, _Node] = {}


def tree(ctx: Context, options: Options, args: list[str]) -> int:
    """Draws each layer below its parent; layers that images share are drawn once."""
    root = _Node()
    for image in images.listing(ctx.api, all=True):
        _add(ctx, root, image)
    largest = max((node.size for node in _walk(root)), default=1) or 1
    for line in _draw(root, "", largest):
        ctx.line(line)
    return 0


def _add(ctx: Context, root: _Node, image: Object) -> None:
    identifier = str(image["Id"])
    layers = (images.inspect(ctx.api, identifier).get("RootFS") or {}).get("Layers") or []
    steps = reversed(images.history(ctx.api, identifier))
    sizes = [int(step.get("Size") or 0) for step in steps]
    # Steps that changed no files have no layer; if the numbers do not match, only names are shown.
    kept = [size for size in sizes if size] if len(sizes) != len(layers) else sizes
    node = root
    for position, layer in enumerate(layers):
        size = kept[position] if len(kept) == len(layers) else 0
        node = node.children.setdefault(layer, _Node(layer, size))
    names = [name for name in image.get("RepoTags") or () if name != "<none>:<none>"]
    node.images.append(", ".join(names) or f"<none> {identifier.removeprefix('sha256:')[:12]}")


def _walk(node: _Node) -> list[_Node]:
    return [node, *(below for child in node.children.values() for below in _walk(child))]


def _draw(node: _Node, indent: str, largest: int) -> list[str]:
    lines: list[str] = []
    children = sorted(node.children.values(), key=lambda child: -child.size)
    for position, child in enumerate(children):
        last = position == len(children) - 1
        bar = "#" * max(1 if child.size else 0, round(child.size / largest * _BAR))
        shown = f"{child.layer.removeprefix('sha256:')[:12]}  {units.size(child.size):>8}  {bar}"
        names = f"  [{'; '.join(child.images)}]" if child.images else ""
        lines.append(f"{indent}{'└─ ' if last else '├─ '}{shown}{names}")
        lines += _draw(child, indent + ("   " if last else "│  "), largest)
    if node.images and not indent and not node.layer:
        lines.append(f"(no layers)  [{'; '.join(node.images)}]")
    return lines


LOG = Command(
    "[OPTIONS] NAME[:TAG]",
    log,
    (FORMAT_TABLE, NO_TRUNC, Flag("quiet", "q", BOOL, "Only show image IDs")),
    least=1,
    most=1,
    complete="image none",
)
ROLLBACK = Command("NAME[:TAG] [VERSION|DIGEST]", rollback, least=1, most=2, complete="image none")
TREE = Command("", tree)
