"""The facts about a container that log drivers need."""

from __future__ import annotations

from wherry.logs import tags, values
from wherry.logs.tags import ContainerFacts
from wherry.state.containers import ContainerRow


def facts_of(row: ContainerRow) -> ContainerFacts:
    record = row.record
    return ContainerFacts(
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
    """The labels and variables that its log options select, and the tag if an option sets one."""
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
