"""The images a container needs: the one it was made from, and those it mounts."""

from __future__ import annotations

from wherry.model.container import Container


def images_of(record: Container) -> dict[str, str]:
    """Image ids -> the platform that the container uses of each, as far as its record says."""
    mounted = {point.image_id: point.image_platform for point in record.mounts if point.type == "image"}
    return {**mounted, record.image_id: record.platform}
