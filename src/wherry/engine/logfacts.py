"""A container as log drivers see it."""

from __future__ import annotations

from wherry.logs import tags, values
from wherry.logs.tags import Facts
from wherry.state.containers import ContainerRow


def facts_of(row: ContainerRow) -> Facts:
    record = row.record
    return Facts(
        id=row.id,
        name=row.name,
        image_name=record.config.image,
        image_id=record.image_id,
        command=" ".join([record.path, *record.args]),
        created=record.created,
        labels=record.config.labels or {},
        env=tuple(record.config.env or ()),
    )


def attributes_of(row: ContainerRow) -> dict[str, str]:
    """Labels and variables its log options choose, and the tag where they name one."""
    chosen = row.record.host_config.log_config.config or {}
    facts = facts_of(row)
    found = tags.attributes(
        facts,
        chosen,
        values.pattern(chosen, "labels-regex"),
        values.pattern(chosen, "env-regex"),
    )
    if chosen.get("tag"):
        found["tag"] = tags.render(chosen["tag"], facts)
    return found
