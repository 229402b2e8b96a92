"""The rows of ``system lost ls``."""

from __future__ import annotations

from wherry.cli.render import units
from wherry.cli.render.rows import fields
from wherry.cli.render.table import Row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class LostLine(Row):
    """One thing of ``/system/lost``."""

    TYPE = "lost.lostContext"
    FIELDS = fields("ID Kind Name Path Since Size Was Why")
    HEADERS = {
        "ID": "ID",
        "Kind": "KIND",
        "Name": "NAME",
        "Path": "PATH",
        "Since": "SINCE",
        "Size": "SIZE",
        "Was": "WAS",
        "Why": "WHY",
    }
    TABLE = "{{.ID}}\t{{.Kind}}\t{{.Was}}\t{{.Size}}\t{{.Since}}\t{{.Why}}"

    def __init__(self, one: dict[str, Any]) -> None:
        self.one = one

    def get_id(self) -> str:
        return str(self.one.get("Id", ""))

    def get_kind(self) -> str:
        return str(self.one.get("Kind", ""))

    def get_name(self) -> str:
        return str(self.one.get("Name", ""))

    def get_path(self) -> str:
        return str(self.one.get("Path", ""))

    def get_was(self) -> str:
        return str(self.one.get("Was", ""))

    def get_why(self) -> str:
        return str(self.one.get("Why", ""))

    def get_size(self) -> str:
        return units.size(int(self.one.get("Size") or 0))

    def get_since(self) -> str:
        return units.ago(units.parse_time(str(self.one.get("Since", ""))) / 1_000_000_000)
