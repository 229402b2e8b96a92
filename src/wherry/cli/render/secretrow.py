"""The rows of ``secret ls``."""

from __future__ import annotations

from wherry.cli.render import units
from wherry.cli.render.rows import fields, labels_text
from wherry.cli.render.table import Row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class SecretLine(Row):
    """One secret of ``/secrets``."""

    TYPE = "secret.secretContext"
    FIELDS = fields("CreatedAt Driver ID Labels Name UpdatedAt")
    HEADERS = {
        "ID": "ID",
        "Name": "NAME",
        "Driver": "DRIVER",
        "CreatedAt": "CREATED",
        "UpdatedAt": "UPDATED",
        "Labels": "LABELS",
    }
    TABLE = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}"

    def __init__(self, secret: dict[str, Any]) -> None:
        self.s, self.spec = secret, secret.get("Spec") or {}

    def get_id(self) -> str:
        return str(self.s.get("ID", ""))

    def get_name(self) -> str:
        return str(self.spec.get("Name", ""))

    def get_driver(self) -> str:
        return str((self.spec.get("Driver") or {}).get("Name", ""))

    def get_createdat(self) -> str:
        return units.ago(units.parse_time(str(self.s.get("CreatedAt", ""))))

    def get_updatedat(self) -> str:
        return units.ago(units.parse_time(str(self.s.get("UpdatedAt", ""))))

    def get_labels(self) -> str:
        return labels_text(self.spec.get("Labels"))

    def get_label(self, name: str) -> str:
        return str((self.spec.get("Labels") or {}).get(name, ""))
