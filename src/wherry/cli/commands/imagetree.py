"""``images --tree``: every image with its names, and below it its local platforms."""

from __future__ import annotations

from wherry.cli.console import safe
from wherry.cli.render import units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Object = dict[str, Any]

HEADS = ("IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA")
_LEFT = 2
"""Columns that are aligned to the left; sizes are aligned to the right."""


def lines(images: list[Object]) -> list[str]:
    """The table. An image's names are listed below each other, with its numbers beside the last one."""
    rows: list[tuple[str, ...]] = [HEADS]
    for image in sorted(images, key=lambda one: -int(one.get("Created") or 0)):
        rows += _image(image)
    widths = [max(len(row[column]) for row in rows if len(row) > column) for column in range(len(HEADS))]
    return [_line(row, widths) for row in rows]


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [
        cell.ljust(width) if column < _LEFT or row is HEADS else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=False))
    ]
    return "   ".join(cells).rstrip()


def _image(image: Object) -> list[tuple[str, ...]]:
    names = sorted(map(str, image.get("RepoTags") or ())) or ["<untagged>"]
    manifests = [one for one in image.get("Manifests") or () if one.get("Kind") == "image"]
    content = sum(_size(one, "Content") for one in image.get("Manifests") or ())
    used = "U" if int(image.get("Containers") or 0) > 0 else ""
    whole = (safe(names[-1]), _short(str(image.get("Id", ""))), _shown(int(image.get("Size") or 0)))
    rows: list[tuple[str, ...]] = [(safe(name),) for name in names[:-1]]
    rows.append((*whole, _shown(content), used))
    for number, one in enumerate(manifests, 1):
        branch = "└─" if number == len(manifests) else "├─"
        platform = (one.get("ImageData") or {}).get("Platform") or {}
        parts = (platform.get(part) for part in ("os", "architecture", "variant"))
        label = f"{branch} {safe('/'.join(str(part) for part in parts if part))}"
        sizes = (_shown(_size(one, "Total")), _shown(_size(one, "Content")))
        used = "U" if (one.get("ImageData") or {}).get("Containers") else ""
        rows.append((label, _short(str(one.get("ID", ""))), *sizes, used))
    return rows


def _size(manifest: Object, what: str) -> int:
    return int((manifest.get("Size") or {}).get(what) or 0)


def _short(digest: str) -> str:
    return units.short_id(digest)


def _shown(count: int) -> str:
    return units.size(count, 3)
