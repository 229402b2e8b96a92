"""What an event says of a container: its name, its image and its labels (API "Monitor events")."""

from __future__ import annotations

from wherry.state.containers import ContainerRow


def event_attributes(row: ContainerRow, **more: str) -> dict[str, str]:
    return {
        **(row.record.config.labels or {}),
        "image": row.record.config.image,
        "name": row.name,
        **more,
    }
